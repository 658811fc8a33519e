-- delete: remove a job that is not running, with all that is stored of it
--
-- FLAGS allow-oom
-- KEYS queued     list  ids in order
-- KEYS scheduled  zset  id by due time
-- KEYS ranked     zset  jobs of other priorities than the usual, by rank and instant
-- KEYS held_back  zset  all jobs that wait before a closed gate
-- KEYS failed     zset  failed jobs
-- KEYS record     hash  the job
-- KEYS payload    str   its envelope
-- ARGV prefix     str   of the queue's keys, for the job's unique key
-- ARGV id         str
-- RETURNS deleted | running | missing
--- @include clock
--- @include queueing
--- @include requeueing
--- @include pacing
--- @include limiting
--- @include notifying
--- @include finish

if redis.call('EXISTS', record) == 0 then
  return 'missing'
end
-- A key of the wrong type is refused here, before anything is written.
redis.call('ZCARD', scheduled)
redis.call('ZCARD', ranked)
redis.call('ZCARD', failed)
local state = redis.pcall('HGET', record, 'state') -- a damaged record can be deleted too
if state == 'running' then
  return 'running'
end
if state == 'scheduled' or state == 'queued' then
  local at = { prefix = prefix, queued = queued, ranked = ranked, held_back = held_back, now = now_ms() }
  finish({ at = at, id = id, record = record, payload = payload }, 'cancelled', at.now, 0, {})
end
redis.call('ZREM', scheduled, id)
redis.call('ZREM', ranked, id)
redis.call('ZREM', failed, id)
redis.call('DEL', record, payload)
return 'deleted'
