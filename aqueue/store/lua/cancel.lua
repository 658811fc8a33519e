-- cancel: end a job that waits, or tell the worker that runs it
--
-- Sent twice, the second answers as the first: a job that was cancelled while it waited bears no request.
--
-- FLAGS allow-oom
-- KEYS scheduled  zset  id by due time
-- KEYS record     hash  the job
-- KEYS payload    str   its envelope
-- KEYS stats      hash  counters
-- ARGV prefix     str   of the queue's keys, for the job's unique key and its worker's channel
-- ARGV id         str
-- ARGV result_ttl_ms  int
-- RETURNS cancelled | requested | too_late | missing
--- @include clock
--- @include counting
--- @include finish

local seen = redis.call('HMGET', record, 'state', 'token', 'cancel')
local state = seen[1]
if not state then
  return 'missing'
end
if state == 'running' then
  redis.call('HSET', record, 'cancel', 1)
  local holder = string.match(seen[2] or '', '^(.*)/')
  if holder then
    redis.call('SPUBLISH', prefix .. 'channel:' .. holder, 'cancel ' .. id)
  end
  return 'requested'
end
if state == 'cancelled' and not seen[3] then
  return 'cancelled'
end
if state ~= 'queued' and state ~= 'scheduled' then
  return 'too_late'
end
-- Its id stays in the queued list, where a claim discards it: to look for it would cost as much as the backlog.
redis.call('ZREM', scheduled, id)
finish({ prefix = prefix, id = id, record = record, payload = payload }, 'cancelled', now_ms(), result_ttl_ms, {})
tally(stats, 'cancelled')
return 'cancelled'
