-- prune: forget failed jobs whose lifetime has passed
--
-- The fleet runs this about once per interval, whoever comes first.
--
-- FLAGS allow-oom
-- KEYS failed     zset  failed jobs by the instant at which their records go
-- KEYS pruned     str   present while the last run is recent
-- ARGV prefix     str   of the queue's keys, for the records of the pruned jobs
-- ARGV limit      int
-- ARGV interval_ms  int
-- RETURNS how many were pruned; -1 when it was not due
--- @include clock

if redis.call('GET', pruned) then
  return -1
end
redis.call('SET', pruned, '1', 'PX', interval_ms)
local ids = redis.call('ZRANGE', failed, '-inf', now_ms(), 'BYSCORE', 'LIMIT', 0, limit)
for _, id in ipairs(ids) do
  redis.call('DEL', prefix .. 'job:' .. id, prefix .. 'payload:' .. id)
end
if #ids > 0 then
  redis.call('ZREM', failed, unpack(ids))
end
if #ids == limit then
  redis.call('DEL', pruned)
end
return #ids
