-- outcomes: what becomes of a job whose run has ended, one function per outcome
--
-- Needs counting, limiting, finish, bury, queueing, noting. `at` carries the queue's keys, the limits and the time; `run` is how it ended, `body` its result or error.
-- Each answers under which name it is to be counted, if not under its own.

local outcomes = {}

function outcomes.completed(at, job, run, body)
  finish(job, 'completed', at.now, run.ttl_ms, { 'result', body, 'task', run.told }, function()
    note(job.record, at.now, at.me, 'completed', '')
  end)
end

function outcomes.failed(at, job, run, body)
  note(job.record, at.now, at.me, 'failed', run.told)
  increase(job.record, 'attempt')
  bury(job, at.failed, at.now, run.ttl_ms, at.failed_cap, body)
end

function outcomes.cancelled(at, job, run)
  note(job.record, at.now, at.me, 'cancelled', '')
  finish(job, 'cancelled', at.now, run.ttl_ms, {})
end

-- A job that was asked to end does not get another run.
local function unless_cancelled(at, job, run, wait)
  if redis.call('HGET', job.record, 'cancel') then
    note(job.record, at.now, at.me, 'cancelled', run.told)
    finish(job, 'cancelled', at.now, at.result_ttl_ms, {})
    return 'cancelled'
  end
  pcall(free_limits_of, at, job.id, job.record) -- a gate that cannot be read keeps a permit, and nobody's outcome
  wait()
end

function outcomes.retried(at, job, run, body)
  return unless_cancelled(at, job, run, function()
    note(job.record, at.now, at.me, 'retried', run.told)
    increase(job.record, 'attempt')
    redis.call('HDEL', job.record, 'unknown_ms')
    schedule(at.queued, at.scheduled, job.id, job.record, at.now + run.delay_ms, { 'error', body })
  end)
end

-- The attempt is not counted: this run ended for reasons that are not the job's.
function outcomes.released(at, job, run, body)
  return unless_cancelled(at, job, run, function()
    local fields = {}
    if body == 'unknown' then
      redis.call('HSETNX', job.record, 'unknown_ms', at.now)
    elseif body ~= '' then -- the job itself has asked for it, and says why
      redis.call('HDEL', job.record, 'unknown_ms')
      fields = { 'error', body }
    end
    if run.delay_ms > 0 then
      schedule(at.queued, at.scheduled, job.id, job.record, at.now + run.delay_ms, fields)
    else
      redis.call('HSET', job.record, 'state', 'queued')
      at.front[#at.front + 1] = job.id
    end
  end)
end

-- A limiter has turned the run away: it comes back when that has room. Neither attempt nor crash is counted.
function outcomes.limited(at, job, run, body)
  return unless_cancelled(at, job, run, function()
    increase(job.record, 'limited')
    redis.call('HDEL', job.record, 'unknown_ms')
    schedule(at.queued, at.scheduled, job.id, job.record, at.now + run.delay_ms, { 'limited_by', body })
  end)
end
