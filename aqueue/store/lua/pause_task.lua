-- pause_task: let no further job of one task start; claims set its jobs aside
--
-- FLAGS allow-oom
-- KEYS shelves    hash  task to the instant since when it is paused, or 0 once its shelf is open again
-- KEYS workers    zset  worker by lease deadline
-- ARGV prefix     str   of the queue's keys, for the workers' channels
-- ARGV task       str
-- ARGV limit      int   tasks that are known here at once
-- RETURNS paused | already | full
--- @include clock
--- @include telling

local since = redis.call('HGET', shelves, task)
if since and since ~= '0' then
  return 'already'
end
if not since and redis.call('HLEN', shelves) >= limit then
  return 'full'
end
redis.call('HSET', shelves, task, now_ms())
tell_workers(prefix, workers, 'pause ' .. task)
return 'paused'
