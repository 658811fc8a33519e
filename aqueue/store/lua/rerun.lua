-- rerun: give ended jobs a fresh start, at the end of the queue or after a delay, and with other arguments if there are some
--
-- Sent twice, the second is known by the caller's word and answers as the first, even if a job has ended again.
--
-- KEYS queued     list  ids in order
-- KEYS ranked     zset  jobs of other priorities than the usual, by rank and instant
-- KEYS scheduled  zset  id by due time
-- KEYS failed     zset  failed jobs
-- KEYS stats      hash  counters
-- EACH record     hash  the job
-- EACH payload    str   its envelope
-- ARGV call       str   made up by the caller, for this wish alone
-- ARGV delay_ms   int
-- ITEM id         str
-- ITEM ended_ms   str   only if it is failed, since that instant; empty for any end
-- ITEM envelope   str   to take the place of its own, empty to keep that
-- ITEM limits     str   gates of the new arguments, see limiting; `-` to keep its own
-- RETURNS list of queued | scheduled | unfinished | gone | missing | changed | damaged
--- @include clock
--- @include counting
--- @include queueing

local now = now_ms()
local granted = delay_ms > 0 and 'scheduled' or 'queued'

-- Answers the word that refuses, if there is one.
local function refusal(state, since, ended, payload)
  if not state then
    return 'missing'
  elseif ended ~= '' and (state ~= 'failed' or (since or '0') ~= ended) then
    return 'changed'
  elseif state ~= 'failed' and state ~= 'cancelled' and state ~= 'expired' then
    return state == 'completed' and 'gone' or 'unfinished'
  end
  return redis.call('EXISTS', payload) == 0 and 'gone' or nil
end

local function change(record, payload, envelope, limits)
  if envelope ~= '' then
    redis.call('SET', payload, envelope)
  end
  if limits == '' then
    redis.call('HDEL', record, 'limits')
  elseif limits ~= '-' then
    redis.call('HSET', record, 'limits', limits)
  end
end

local function line_up(id, record)
  if delay_ms > 0 then
    schedule(queued, scheduled, id, record, now + delay_ms, {})
    return
  end
  redis.call('HSET', record, 'state', 'queued', 'due_ms', now)
  local rank, since = place_of(record)
  if rank then
    redis.call('ZADD', ranked, rank + since, id)
    wake(queued)
  else
    redis.call('LPUSH', queued, id)
  end
end

local function again(id, ended, envelope, limits, record, payload)
  local seen = redis.call('HMGET', record, 'state', 'rerun', 'ended_ms')
  if seen[1] and seen[2] == call then
    return granted
  end
  local refused = refusal(seen[1], seen[3], ended, payload)
  if refused then
    return refused
  end
  change(record, payload, envelope, limits)
  redis.call('HDEL', record, 'attempt', 'crashes', 'cancel', 'error', 'expires_ms', 'due_ms', 'started_ms', 'ended_ms', 'token',
    'unknown_ms', 'unique', 'scope', 'called', 'limited', 'limited_by')
  redis.call('HSET', record, 'rerun', call)
  redis.call('PERSIST', record)
  redis.call('PERSIST', payload)
  redis.call('ZREM', failed, id)
  line_up(id, record)
  tally(stats, 'rerun')
  return granted
end

-- A key of the wrong type is refused here, before anything is written.
redis.call('LLEN', queued)
redis.call('ZCARD', ranked)
redis.call('ZCARD', scheduled)
redis.call('ZCARD', failed)

local words = {}
for id, ended, envelope, limits, record, payload in items() do
  local readable, word = pcall(again, id, ended, envelope, limits, record, payload)
  words[#words + 1] = readable and word or 'damaged'
end
return words
