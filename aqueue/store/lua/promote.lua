-- promote: queue scheduled jobs that are due
--
-- Claim does this too; this is for queues whose workers are all busy.
--
-- FLAGS allow-oom
-- KEYS queued     list  ids in order
-- KEYS scheduled  zset  id by due time
-- ARGV prefix     str   of the queue's keys, for the records of the due jobs
-- ARGV limit      int
-- RETURNS how many were promoted
--- @include clock
--- @include promoting

return promote(prefix, queued, scheduled, now_ms(), limit)
