-- settling: take in how one run has ended
--
-- Needs clock, notifying, outcomes. `at` carries the queue's keys, the limits and the time.

-- Most runs of a turn have ended alike: each different ending is read once.
local endings = {}

local function ending(words)
  local known = endings[words]
  if not known then
    local outcome, delay_ms, ttl_ms, told = string.match(words, '^(%S+) (%S+) (%S+) (.*)$')
    known = { outcome = outcome, delay_ms = number(delay_ms), ttl_ms = number(ttl_ms), told = told }
    endings[words] = known
  end
  return known
end

-- Nearly every run ends like this: a record of nothing but state, enqueued_ms, token and started_ms, and waiters perhaps,
-- has no key and no lifetime of its own to look after. It becomes what `finish` would make of it, with fewer commands; its
-- payload is left to the caller, who removes many at once.
local PLAIN_FIELDS = 4

local function complete_plain(at, id, record, run, body)
  local fields = run.ttl_ms > 0 and redis.pcall('HLEN', record)
  local waiters = fields == PLAIN_FIELDS + 1 and redis.call('HGET', record, 'waiters')
  if fields ~= PLAIN_FIELDS and not waiters then
    return false
  end
  redis.call('HSET', record, 'state', 'completed', 'ended_ms', at.now, 'result', body, 'task', run.told)
  redis.call('PEXPIRE', record, run.ttl_ms)
  if waiters then
    tell_waiters(at.prefix, id, record, waiters, 'completed', body)
  end
  return true
end

-- Answers what is to be counted. A record that cannot be written must not cost the neighbours their outcome.
local function settle(at, job, run, body)
  local intact, became = pcall(outcomes[run.outcome], at, job, run, body)
  return intact and (became or run.outcome) or 'damaged'
end

-- The worker's own record is gone when it was reclaimed, but the job's record still knows its last delivery.
local function settled_before(record, lease)
  local seen = redis.pcall('HMGET', record, 'token', 'state') -- without either if it cannot be read
  return seen[1] == lease and seen[2] ~= 'running'
end
