-- enqueue: store new jobs as queued, or as scheduled when they are due later
--
-- All items in one step. Sent twice, the second finds the records and answers the same ids.
--
-- KEYS queued     list  ids in order
-- KEYS scheduled  zset  id by due time
-- EACH record     hash  the job; a new one does not exist, so a slot that moves to another node answers TRYAGAIN
-- ARGV prefix     str   of the queue's keys, for envelopes and the records of holders
-- ITEM id         str
-- ITEM envelope   str
-- ITEM wishes     str   empty for a job that is to run at once, with neither key nor lifetimes of its own; else six words:
--                       delay_ms from now, at_ms in Unix time or 0, ttl_ms to start within once it is due or 0,
--                       digest of the user's key, result_ttl_ms and failure_ttl_ms, each of these - for none
-- RETURNS list of the id that now stands for each item: its own, or that of the unfinished job with its key
--- @include clock
--- @include queueing

local now, payloads = now_ms(), prefix .. 'payload:'
local answers, ready = {}, {}

-- A key whose holder has ended, no longer exists or cannot be read, is free. Nothing may raise once something is written.
local function holder(unique)
  local UNFINISHED = { scheduled = true, queued = true, running = true }
  local id = redis.pcall('GET', unique)
  local state = type(id) == 'string' and redis.pcall('HGET', prefix .. 'job:' .. id, 'state')
  return type(state) == 'string' and UNFINISHED[state] and id
end

local function store(id, wishes, record)
  local delay_ms, at_ms, ttl_ms, digest, result_ttl_ms, failure_ttl_ms =
    string.match(wishes, '^(%S+) (%S+) (%S+) (%S+) (%S+) (%S+)$')
  local unique = prefix .. 'unique:' .. digest
  local other = digest ~= '-' and holder(unique)
  if other then
    return other
  end
  local due = at_ms ~= '0' and number(at_ms) or now + number(delay_ms)
  local fields = { 'enqueued_ms', now }
  local function optional(name, value)
    if value ~= '-' then
      fields[#fields + 1] = name
      fields[#fields + 1] = value
    end
  end
  optional('expires_ms', ttl_ms ~= '0' and math.max(due, now) + number(ttl_ms) or '-')
  optional('result_ttl_ms', result_ttl_ms)
  optional('failure_ttl_ms', failure_ttl_ms)
  optional('unique', digest)
  if digest ~= '-' then
    redis.call('SET', unique, id)
  end
  if due > now then
    schedule(queued, scheduled, id, record, due, fields)
  else
    redis.call('HSET', record, 'state', 'queued', unpack(fields))
    ready[#ready + 1] = id
  end
  return id
end

-- A key of the wrong type is refused here, before anything is written.
redis.call('LLEN', queued)
redis.call('ZCARD', scheduled)

for id, envelope, wishes, record in items() do
  local stands = id
  if redis.call('EXISTS', record) == 0 then
    if wishes == '' then
      redis.call('HSET', record, 'state', 'queued', 'enqueued_ms', now)
      ready[#ready + 1] = id
    else
      stands = store(id, wishes, record)
    end
    if stands == id then
      redis.call('SET', payloads .. id, envelope)
    end
  end
  answers[#answers + 1] = stands
end
if #ready > 0 then
  redis.call('LPUSH', queued, unpack(ready))
end
return answers
