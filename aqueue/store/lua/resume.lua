-- resume: let jobs start again, and wake the workers
--
-- FLAGS allow-oom
-- KEYS paused     str   present while paused
-- KEYS workers    zset  worker by lease deadline
-- ARGV prefix     str   of the queue's keys, for the workers' channels
-- RETURNS whether it was paused before
--- @include telling

local before = redis.call('DEL', paused)
tell_workers(prefix, workers, 'resume')
return before
