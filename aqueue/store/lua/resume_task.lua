-- resume_task: let jobs of one task start again, those that were set aside before all others
--
-- However many they are, none is moved: claims take them from where they lie.
--
-- FLAGS allow-oom
-- KEYS queued     list  ids in order
-- KEYS shelves    hash  task to the instant since when it is paused, or 0 once its shelf is open again
-- KEYS workers    zset  worker by lease deadline
-- ARGV prefix     str   of the queue's keys, for the shelf and the workers' channels
-- ARGV task       str
-- RETURNS resumed | already
--- @include clock
--- @include queueing
--- @include telling

local since = redis.call('HGET', shelves, task)
if since and redis.call('EXISTS', prefix .. 'shelf:' .. task) == 1 then
  redis.call('HSET', shelves, task, '0')
  pcall(wake, queued) -- of a list that cannot be read nobody waits
else
  redis.call('HDEL', shelves, task)
end
tell_workers(prefix, workers, 'resume ' .. task)
return since and since ~= '0' and 'resumed' or 'already'
