-- pause: let no further job of this queue start
--
-- FLAGS allow-oom
-- KEYS paused     str   present while paused
-- KEYS workers    zset  worker by lease deadline
-- ARGV prefix     str   of the queue's keys, for the workers' channels
-- RETURNS whether it was running before
--- @include clock
--- @include telling

if not redis.call('SET', paused, now_ms(), 'NX') then
  return 0
end
tell_workers(prefix, workers, 'pause')
return 1
