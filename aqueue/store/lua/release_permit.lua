-- release_permit: a holder gives its permit back, or its place in line, and the next in line has it
--
-- FLAGS allow-oom
-- KEYS holders  zset  holder by when its permit ends
-- KEYS line     zset  who waits for a permit, or to whom an instant was named
-- KEYS patience zset  who waits for a permit, by until when it is believed to do so
-- ARGV prefix   str   of the queue's keys, for channels
-- ARGV holder   str
-- ARGV limit    int   permits of the limiter, 0 for a Rate or a Window, which have none
-- ARGV lease_ms int
-- RETURNS whether it held a permit
--- @include clock
--- @include granting
--- @include handing

-- A key of the wrong type is refused here, before anything is written.
redis.call('ZCARD', holders)
redis.call('ZCARD', line)
redis.call('ZCARD', patience)

local at = { prefix = prefix, now = now_ms(), holders = holders, line = line, patience = patience }
local held = redis.call('ZREM', holders, holder)
leave_line_of(at, holder)
if limit > 0 then
  hand_on(at, limit, lease_ms)
end
return held
