-- withdraw: forget the schedules of some tasks that their code no longer declares
--
-- Who knows a task knows the schedules that its code has, and none of those that users make. A worker of an older release
-- may still have them; it finds the note that they were removed, and its own word counts again when the worker that removed
-- them has gone.
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

local tasks, kept, removed = {}, {}, {}
for word, name in items() do
  (word == 'task' and tasks or kept)[name] = true
end
for _, id in ipairs(redis.call('ZRANGE', schedules, 0, -1)) do
  local key = prefix .. 'schedule:' .. id
  local seen = known_of(key)
  local is_newer = number(seen.declared_ms) > declared_ms and redis.call('ZSCORE', workers, seen.worker or '')
  if not kept[id] and is_live(seen, 'code') and tasks[seen.task] and not is_newer then
    redis.call('DEL', key)
    redis.call('HSET', key, 'worker', me)
    leave_note(schedules, key, id, 'removed_ms', declared_ms)
    removed[#removed + 1] = id
  end
end
return removed
