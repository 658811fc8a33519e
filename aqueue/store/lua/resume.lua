-- resume: let jobs start again, and wake the workers
--
-- FLAGS allow-oom
-- KEYS paused     str   present while paused
-- KEYS workers    zset  worker by lease deadline
-- ARGV prefix     str   of the queue's keys, for the workers' channels
-- RETURNS whether it was paused before

local before = redis.call('DEL', paused)
for _, name in ipairs(redis.pcall('ZRANGE', workers, 0, -1)) do -- none if it cannot be read
  redis.call('SPUBLISH', prefix .. 'channel:' .. name, 'resume')
end
return before
