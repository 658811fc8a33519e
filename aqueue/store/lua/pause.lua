-- pause: let no further job of this queue start
--
-- FLAGS allow-oom
-- KEYS paused     str   present while paused
-- RETURNS whether it was running before
--- @include clock

return redis.call('SET', paused, now_ms(), 'NX') and 1 or 0
