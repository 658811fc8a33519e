-- settling: take in how one run has ended
--
-- Needs outcomes. `at` carries the queue's keys, the limits and the time.

-- Nearly every run ends like this: a record of nothing but state, enqueued_ms, token and started_ms has no waiters, no
-- key and no lifetime of its own to look after. It becomes what `finish` would make of it, with fewer commands; its
-- payload is left to the caller, who removes many at once.
local PLAIN_FIELDS = 4

local function complete_plain(at, record, body, ttl_ms, task)
  if ttl_ms == '0' or ttl_ms == '-1' or redis.pcall('HLEN', record) ~= PLAIN_FIELDS then
    return false
  end
  redis.call('HSET', record, 'state', 'completed', 'ended_ms', at.now, 'result', body, 'task', task)
  redis.call('PEXPIRE', record, ttl_ms)
  return true
end

-- Answers what is to be counted. A record that cannot be written must not cost the neighbours their outcome.
local function settle(at, job, outcome, run)
  local intact, became = pcall(outcomes[outcome], at, job, run)
  return intact and (became or outcome) or 'damaged'
end

-- The worker's own record is gone when it was reclaimed, but the job's record still knows its last delivery.
local function settled_before(record, lease)
  local seen = redis.call('HMGET', record, 'token', 'state')
  return seen[1] == lease and seen[2] ~= 'running'
end
