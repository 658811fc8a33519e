-- schedules: what is known of each schedule, the next one to be due first
--
-- FLAGS no-writes
-- KEYS schedules  zset  schedule by its next slot
-- ARGV prefix     str   of the queue's keys, for the schedules
-- RETURNS list of id, next slot, last slot, job of the last slot, task, definition

local found = {}
local entries = redis.call('ZRANGE', schedules, 0, -1, 'WITHSCORES')
for i = 1, #entries, 2 do
  local seen = redis.call('HMGET', prefix .. 'schedule:' .. entries[i], 'slot_ms', 'job', 'task', 'definition')
  found[#found + 1] = { entries[i], entries[i + 1], seen[1] or '0', seen[2] or '', seen[3] or '', seen[4] or '' }
end
return found
