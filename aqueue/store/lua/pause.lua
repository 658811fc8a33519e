-- pause: let no further job of this queue start
--
-- FLAGS allow-oom
-- KEYS paused     str   present while paused
-- KEYS workers    zset  worker by lease deadline
-- ARGV prefix     str   of the queue's keys, for the workers' channels
-- ARGV span_ms    int   until it ends by itself; 0 for never. The last word counts
-- RETURNS whether it was running before
--- @include clock
--- @include telling

local since = redis.call('GET', paused)
if span_ms > 0 then
  redis.call('SET', paused, since or now_ms(), 'PX', span_ms)
else
  redis.call('SET', paused, since or now_ms())
end
if since then
  return 0
end
tell_workers(prefix, workers, 'pause')
return 1
