-- leaving: end a job that waits for its start, wherever that is
--
-- Needs finish. Its id stays in the queued list, where a claim discards it: to look for it would cost as much as the backlog.

-- job: as for finish; at has the queue's scheduled jobs, too
local function leave(job, state, ttl_ms)
  local at = job.at
  redis.call('ZCARD', at.ranked) -- a key of the wrong type is refused here, before anything is written
  redis.call('ZREM', at.scheduled, job.id)
  redis.call('ZREM', at.ranked, job.id)
  finish(job, state, at.now, ttl_ms, {})
end
