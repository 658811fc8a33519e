-- expire: end a job whose ttl has passed before a start, for somebody who waits for it
--
-- A claim ends such a job too, when it comes to it; but there may be no worker, or none that has a free slot. Sent twice,
-- the second finds that it has ended.
--
-- FLAGS allow-oom
-- KEYS queued     list  ids in order
-- KEYS scheduled  zset  id by due time
-- KEYS ranked     zset  jobs of other priorities than the usual, by rank and instant
-- KEYS held_back  zset  all jobs that wait before a closed gate
-- KEYS record     hash  the job
-- KEYS payload    str   its envelope
-- KEYS stats      hash  counters
-- ARGV prefix     str   of the queue's keys, for the job's unique key and its waiters' channels
-- ARGV id         str
-- ARGV result_ttl_ms  int
-- RETURNS 1 if it has expired, now or before; 0 if it has not
--- @include clock
--- @include counting
--- @include queueing
--- @include requeueing
--- @include pacing
--- @include limiting
--- @include notifying
--- @include finish
--- @include leaving

local now, seen = now_ms(), redis.call('HMGET', record, 'state', 'expires_ms', 'started_ms')
local waits = seen[1] == 'queued' or seen[1] == 'scheduled'
if not waits or not seen[2] or seen[3] or number(seen[2]) > now then
  return seen[1] == 'expired' and 1 or 0
end
local at = { prefix = prefix, queued = queued, ranked = ranked, held_back = held_back, scheduled = scheduled, now = now }
leave({ at = at, id = id, record = record, payload = payload }, 'expired', result_ttl_ms)
tally(stats, 'expired')
return 1
