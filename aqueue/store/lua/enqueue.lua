-- enqueue: store new jobs as queued, or as scheduled when they are due later
--
-- All items in one step. Sent twice, the second finds the records and answers the same ids.
--
-- KEYS queued     list  ids in order
-- KEYS scheduled  zset  id by due time
-- EACH record     hash  the job
-- EACH payload    str   its envelope
-- EACH unique     str   holder of the user's key; untouched when the item has no digest
-- ARGV prefix     str   of the queue's keys, for the record of a holder
-- ITEM id         str
-- ITEM envelope   str
-- ITEM delay_ms   int   from now; 0 is at once
-- ITEM at_ms      int   Unix ms; 0 is none
-- ITEM ttl_ms     int   must start within this after it is due; 0 is no limit
-- ITEM digest     str   of the user's key; empty is none
-- ITEM result_ttl_ms   str  empty leaves it to the worker
-- ITEM failure_ttl_ms  str  empty leaves it to the worker
-- RETURNS list of the id that now stands for each item: its own, or that of the unfinished job with its key
--- @include clock
--- @include queueing

local UNFINISHED = { scheduled = true, queued = true, running = true }
local now = now_ms()
local answers, ready = {}, {}

-- A key whose holder has ended, or no longer exists, is free.
local function holder(unique)
  local id = redis.call('GET', unique)
  if id and UNFINISHED[redis.call('HGET', prefix .. 'job:' .. id, 'state')] then
    return id
  end
end

local function optional(fields, name, value)
  if value ~= '' then
    fields[#fields + 1] = name
    fields[#fields + 1] = value
  end
end

-- A key of the wrong type is refused here, before anything is written.
redis.call('LLEN', queued)
redis.call('ZCARD', scheduled)

for id, envelope, delay_ms, at_ms, ttl_ms, digest, result_ttl_ms, failure_ttl_ms, record, payload, unique in items() do
  local known = redis.call('EXISTS', record) == 1
  local other = not known and digest ~= '' and holder(unique)
  answers[#answers + 1] = other or id
  if not known and not other then
    local due = at_ms > 0 and at_ms or now + delay_ms
    local fields = { 'enqueued_ms', now }
    optional(fields, 'expires_ms', ttl_ms > 0 and math.max(due, now) + ttl_ms or '')
    optional(fields, 'result_ttl_ms', result_ttl_ms)
    optional(fields, 'failure_ttl_ms', failure_ttl_ms)
    optional(fields, 'unique', digest)
    redis.call('SET', payload, envelope)
    if digest ~= '' then
      redis.call('SET', unique, id)
    end
    if due > now then
      schedule(queued, scheduled, id, record, due, fields)
    else
      redis.call('HSET', record, 'state', 'queued', unpack(fields))
      ready[#ready + 1] = id
    end
  end
end
if #ready > 0 then
  redis.call('LPUSH', queued, unpack(ready))
end
return answers
