-- cancel: end a job that waits, or tell the worker that runs it
--
-- Sent twice, the second answers as the first: a job that was cancelled while it waited bears no request.
--
-- FLAGS allow-oom
-- KEYS queued     list  ids in order
-- KEYS scheduled  zset  id by due time
-- KEYS ranked     zset  jobs of other priorities than the usual, by rank and instant
-- KEYS held_back  zset  all jobs that wait before a closed gate
-- KEYS record     hash  the job
-- KEYS payload    str   its envelope
-- KEYS stats      hash  counters
-- ARGV prefix     str   of the queue's keys, for the job's unique key and its worker's channel
-- ARGV id         str
-- ARGV result_ttl_ms  int
-- RETURNS cancelled | requested | too_late | missing
--- @include clock
--- @include counting
--- @include queueing
--- @include requeueing
--- @include pacing
--- @include limiting
--- @include notifying
--- @include finish
--- @include leaving

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
local at = {
  prefix = prefix, queued = queued, ranked = ranked, held_back = held_back, scheduled = scheduled, now = now_ms(),
}
leave({ at = at, id = id, record = record, payload = payload }, 'cancelled', result_ttl_ms)
tally(stats, 'cancelled')
return 'cancelled'
