-- describe: all that is known of some schedules
--
-- FLAGS no-writes
-- EACH entry      hash  one schedule
-- RETURNS now | for each its fields and values, none for one that does not exist
--- @include clock

local found = {}
for entry in items() do
  found[#found + 1] = redis.call('HGETALL', entry)
end
return { now_ms(), found }
