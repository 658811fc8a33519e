-- promote: queue scheduled jobs that are due
--
-- Claim does this too; this is for queues whose workers are all busy.
--
-- FLAGS allow-oom
-- KEYS queued     list  ids in order
-- KEYS ranked     zset  jobs of other priorities than the usual, by rank and instant
-- KEYS held_back  zset  all jobs that wait before a closed gate
-- KEYS timers     zset  gate that opens by time, by when it lets go who waits
-- KEYS scheduled  zset  id by due time
-- ARGV prefix     str   of the queue's keys, for the records of the due jobs
-- ARGV limit      int
-- RETURNS how many were promoted
--- @include clock
--- @include queueing
--- @include requeueing
--- @include pacing
--- @include limiting
--- @include promoting

local at = {
  prefix = prefix, queued = queued, ranked = ranked, held_back = held_back, timers = timers, scheduled = scheduled,
  now = now_ms(),
}
fire_timers(at)
return promote(at, limit)
