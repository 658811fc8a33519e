-- rerun: give an ended job a fresh start at the end of the queue
--
-- KEYS queued     list  ids in order
-- KEYS failed     zset  failed jobs
-- KEYS record     hash  the job
-- KEYS payload    str   its envelope
-- KEYS stats      hash  counters
-- ARGV id         str
-- RETURNS queued | unfinished | gone | missing

local state = redis.call('HGET', record, 'state')
if not state then
  return 'missing'
end
if state ~= 'failed' and state ~= 'cancelled' and state ~= 'expired' then
  return state == 'completed' and 'gone' or 'unfinished'
end
if redis.call('EXISTS', payload) == 0 then
  return 'gone'
end
redis.call('HDEL', record, 'attempt', 'crashes', 'cancel', 'error', 'expires_ms', 'due_ms', 'started_ms', 'ended_ms', 'token',
  'unknown_ms', 'unique')
local time = redis.call('TIME')
redis.call('HSET', record, 'state', 'queued', 'due_ms', time[1] * 1000 + math.floor(time[2] / 1000))
redis.call('PERSIST', record)
redis.call('PERSIST', payload)
redis.call('ZREM', failed, id)
redis.call('LPUSH', queued, id)
redis.call('HINCRBY', stats, 'rerun', 1)
return 'queued'
