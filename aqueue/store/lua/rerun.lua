-- rerun: give an ended job a fresh start at the end of the queue
--
-- Sent twice, the second is known by the caller's word and answers as the first, even if the job has ended again.
--
-- KEYS queued     list  ids in order
-- KEYS ranked     zset  jobs of other priorities than the usual, by rank and instant
-- KEYS failed     zset  failed jobs
-- KEYS record     hash  the job
-- KEYS payload    str   its envelope
-- KEYS stats      hash  counters
-- ARGV id         str
-- ARGV call       str   made up by the caller, for this wish alone
-- RETURNS queued | unfinished | gone | missing
--- @include clock
--- @include counting
--- @include queueing

-- A key of the wrong type is refused here, before anything is written.
redis.call('LLEN', queued)
redis.call('ZCARD', ranked)
redis.call('ZCARD', failed)
local seen = redis.call('HMGET', record, 'state', 'rerun')
local state = seen[1]
if not state then
  return 'missing'
end
if seen[2] == call then
  return 'queued'
end
if state ~= 'failed' and state ~= 'cancelled' and state ~= 'expired' then
  return state == 'completed' and 'gone' or 'unfinished'
end
if redis.call('EXISTS', payload) == 0 then
  return 'gone'
end
redis.call('HDEL', record, 'attempt', 'crashes', 'cancel', 'error', 'expires_ms', 'due_ms', 'started_ms', 'ended_ms', 'token',
  'unknown_ms', 'unique', 'scope', 'called', 'limited', 'limited_by')
redis.call('HSET', record, 'state', 'queued', 'rerun', call, 'due_ms', now_ms())
redis.call('PERSIST', record)
redis.call('PERSIST', payload)
redis.call('ZREM', failed, id)
local rank, since = place_of(record)
if rank then
  redis.call('ZADD', ranked, rank + since, id)
  wake(queued)
else
  redis.call('LPUSH', queued, id)
end
tally(stats, 'rerun')
return 'queued'
