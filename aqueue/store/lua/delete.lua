-- delete: remove a job that is not running, with all that is stored of it
--
-- FLAGS allow-oom
-- KEYS scheduled  zset  id by due time
-- KEYS failed     zset  failed jobs
-- KEYS record     hash  the job
-- KEYS payload    str   its envelope
-- ARGV prefix     str   of the queue's keys, for the job's unique key
-- ARGV id         str
-- RETURNS deleted | running | missing
--- @include clock
--- @include finish

if redis.call('EXISTS', record) == 0 then
  return 'missing'
end
redis.call('ZCARD', scheduled) -- a key of the wrong type is refused here, before anything is written
redis.call('ZCARD', failed)
local state = redis.pcall('HGET', record, 'state') -- a damaged record can be deleted too
if state == 'running' then
  return 'running'
end
if state == 'scheduled' or state == 'queued' then
  finish({ prefix = prefix, id = id, record = record, payload = payload }, 'cancelled', now_ms(), 0, {})
end
redis.call('ZREM', scheduled, id)
redis.call('ZREM', failed, id)
redis.call('DEL', record, payload)
return 'deleted'
