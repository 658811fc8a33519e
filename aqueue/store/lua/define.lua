-- define: store a schedule that a user makes, or changes
--
-- Sent twice, the second finds the same definition, or the mark of the call that made it, also in the note of a delete.
--
-- KEYS user_made  zset  schedules of users by their next slot
-- KEYS entry      hash  what is known of this one
-- KEYS changed    str   which change of a schedule was the last
-- ARGV prefix     str   of the queue's keys, for the channel of all workers
-- ARGV id         str   of the schedule
-- ARGV made       str   mark of this call
-- ARGV expected   str   definition that is to be changed; empty to store this one whatever there is
-- ARGV task       str
-- ARGV definition str   changes when the schedule does
-- ARGV spec       str   all that is to be known of it, but for the call
-- ARGV call       str   what its jobs are made of
-- ARGV timing     str   changes when its instants do: slots that have passed by then never start
-- ARGV once_ms    int   its only instant, which may have passed; -1 for one that repeats
-- ARGV begins     int   1 if a job is to start at once
-- RETURNS new | changed | kept, as it was the same | code, which it belongs to | other, than was expected; now
--- @include clock
--- @include remembering

-- A key of the wrong type is refused here, before anything is written.
redis.call('ZCARD', user_made)
redis.call('GET', changed)

local now, seen = now_ms(), known_of(entry)
if is_live(seen, 'code') then
  return { 'code', now }
end
local lives = is_live(seen, 'user')
if seen.made == made or seen.before == made or not seen.removed_ms and seen.owner == 'user' and seen.definition == definition then
  if lives and seen.definition == definition and redis.call('HGET', entry, 'call') ~= call then
    redis.call('HSET', entry, 'call', call) -- the same, sealed anew, with another key perhaps
    announce(changed, prefix, made)
  end
  return { 'kept', now }
end
if expected ~= '' and (not lives or seen.definition ~= expected) then
  return { 'other', now }
end

local last = once_ms < 0 and now or math.min(now, once_ms - 1)
if lives and seen.timing == timing then
  last = number(seen.slot_ms)
end
redis.call('DEL', entry)
redis.call('HSET', entry, 'owner', 'user', 'definition', definition, 'spec', spec, 'call', call, 'task', task,
  'timing', timing, 'made', made, 'declared_ms', now, 'slot_ms', last)
if lives then
  local kept = { 'paused', 'job', expected ~= '' and 'started' or nil, expected ~= '' and 'begins' or nil }
  for _, name in ipairs(kept) do
    if seen[name] then
      redis.call('HSET', entry, name, seen[name])
    end
  end
end
if begins == 1 then
  redis.call('HSET', entry, 'begins', 1)
end
redis.call('ZADD', user_made, lives and seen.paused and '+inf' or now, id)
announce(changed, prefix, made)
return { lives and 'changed' or 'new', now }
