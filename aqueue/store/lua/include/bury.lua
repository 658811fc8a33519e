-- bury: end a job as failed and list it among the failed, of which there are at most `cap`
--
-- Needs finish.

local function bury(job, failed, now, ttl_ms, cap, error)
  ttl_ms = finish(job, 'failed', now, ttl_ms, { 'error', error })
  if ttl_ms == 0 then
    return
  end
  redis.call('ZADD', failed, ttl_ms < 0 and '+inf' or now + ttl_ms, job.id)
  if redis.call('ZCARD', failed) > cap then
    local oldest = redis.call('ZPOPMIN', failed)[1]
    redis.call('DEL', job.at.prefix .. 'job:' .. oldest, job.at.prefix .. 'payload:' .. oldest)
  end
end
