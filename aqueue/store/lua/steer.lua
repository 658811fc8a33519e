-- steer: pause a schedule, let it go on, or delete it
--
-- Sent twice, the second answers as the first: it finds the mark of the call, after a delete in the note that that left.
--
-- FLAGS allow-oom
-- KEYS schedules  zset  those of the code by their next slot
-- KEYS user_made  zset  those of users
-- KEYS entry      hash  what is known of this one
-- KEYS changed    str   which change of a schedule was the last
-- ARGV prefix     str   of the queue's keys, for the channel of all workers
-- ARGV id         str   of the schedule
-- ARGV made       str   mark of this call
-- ARGV what       str   pause | resume, without the slots that have passed meanwhile | delete
-- RETURNS done | already | code, which it belongs to | ended | missing
--- @include clock
--- @include remembering

-- A key of the wrong type is refused here, before anything is written.
redis.call('ZCARD', schedules)
redis.call('ZCARD', user_made)
redis.call('GET', changed)

local now, seen = now_ms(), known_of(entry)
local index = seen.owner == 'user' and user_made or schedules
if seen.removed_ms and seen.made == made or seen.steered == made then
  return 'done'
end
if seen.removed_ms or not seen.definition then
  return 'missing'
end
if what == 'delete' then
  if seen.owner ~= 'user' then
    return 'code'
  end
  redis.call('DEL', entry)
  redis.call('HSET', entry, 'owner', 'user', 'made', made, 'before', seen.made or '')
  leave_note(index, entry, id, 'removed_ms', now)
elseif seen.ended_ms then
  return 'ended'
elseif what == 'pause' then
  if seen.paused then
    return 'already'
  end
  redis.call('HSET', entry, 'paused', now, 'steered', made)
  redis.call('ZADD', index, '+inf', id)
else
  if not seen.paused then
    return 'already'
  end
  redis.call('HDEL', entry, 'paused')
  redis.call('HSET', entry, 'slot_ms', math.max(number(seen.slot_ms), now), 'steered', made)
  redis.call('ZADD', index, now, id)
end
announce(changed, prefix, made)
return 'done'
