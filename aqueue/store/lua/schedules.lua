-- schedules: which schedules of the code, or of users, there are, the next one to be due first
--
-- FLAGS no-writes
-- KEYS schedules  zset  schedule by its next slot
-- ARGV prefix     str   of the queue's keys, for the schedules
-- ARGV within_ms  int   those only whose next slot comes within that; -1 for all
-- ARGV skip       int   so many of them
-- ARGV limit      int
-- RETURNS now | list of id, next slot, definition
--- @include clock

local now, found = now_ms(), {}
local upto = within_ms < 0 and '+inf' or now + within_ms
local entries = redis.call('ZRANGE', schedules, '-inf', upto, 'BYSCORE', 'LIMIT', skip, limit, 'WITHSCORES')
for i = 1, #entries, 2 do
  local definition = redis.call('HGET', prefix .. 'schedule:' .. entries[i], 'definition')
  found[#found + 1] = { entries[i], entries[i + 1], definition or '' }
end
return { now, found }
