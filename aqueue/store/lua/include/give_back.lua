-- give_back: a worker no longer holds a job that it did not settle
--
-- Needs counting, limiting, finish. Forgetting the token is what makes a settle that comes after all a lost lease.

-- Answers whether the job is to be queued again; one that was to be cancelled has ended instead.
local function let_go(job, stats, now, result_ttl_ms)
  redis.call('HDEL', job.record, 'token')
  if redis.call('HGET', job.record, 'cancel') then
    finish(job, 'cancelled', now, result_ttl_ms, {})
    tally(stats, 'cancelled')
    return false
  end
  pcall(free_limits_of, job.at, job.id, job.record)
  return true
end

-- Answers whether the job is queued again, once the caller has put it there. A record that cannot be read is left alone.
local function give_back(job, stats, now, result_ttl_ms)
  local function attempt()
    if redis.call('HGET', job.record, 'state') ~= 'running' or not let_go(job, stats, now, result_ttl_ms) then
      return false
    end
    redis.call('HSET', job.record, 'state', 'queued')
    return true
  end
  local intact, again = pcall(attempt)
  return intact and again
end
