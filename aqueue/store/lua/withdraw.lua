-- withdraw: forget the schedules that their code no longer declares
--
-- Who knows a task knows the schedules that its code has, and none of those that users make. A worker of an older release
-- may still have them; it finds the note that they were removed, and its own word counts again when the worker that removed
-- them has gone. A schedule that went together with its task is known to nobody; it is forgotten when no worker that has it
-- has come for so long that its slots are not worth waiting for.
--
-- FLAGS allow-oom
-- KEYS schedules  zset  those of the code by their next slot
-- KEYS workers    zset  worker by lease deadline
-- ARGV prefix     str   of the queue's keys, for the schedules
-- ARGV me         str   worker id
-- ARGV declared_ms  int  when this worker came up, by the server's clock
-- ITEM word       str   task | schedule
-- ITEM name       str   of a task that this worker knows, or of a schedule that it declares
-- RETURNS ids removed
--- @include clock
--- @include remembering

local ABANDONED_MS = 7 * 86400000 -- after the slot that nobody started

local now, tasks, kept, removed = now_ms(), {}, {}, {}
for word, name in items() do
  (word == 'task' and tasks or kept)[name] = true
end
local listed = redis.call('ZRANGE', schedules, 0, -1, 'WITHSCORES')
for i = 1, #listed, 2 do
  local id, key = listed[i], prefix .. 'schedule:' .. listed[i]
  local seen = known_of(key)
  local is_tended = redis.call('ZSCORE', workers, seen.worker or '')
  local is_newer = is_tended and number(seen.declared_ms) > declared_ms
  local is_abandoned = not is_tended and tonumber(listed[i + 1]) < now - ABANDONED_MS
  if not kept[id] and is_live(seen, 'code') and (tasks[seen.task] and not is_newer or is_abandoned) then
    redis.call('DEL', key)
    redis.call('HSET', key, 'worker', me)
    leave_note(schedules, key, id, 'removed_ms', declared_ms)
    removed[#removed + 1] = id
  end
end
return removed
