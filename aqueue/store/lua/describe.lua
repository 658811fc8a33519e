-- describe: all that is known of some schedules
--
-- FLAGS no-writes
-- EACH entry      hash  one schedule
-- ITEM id         str   of it
-- RETURNS now | for each its fields and values, none for one that does not exist
--- @include clock

local found = {}
for _, entry in items() do
  found[#found + 1] = redis.call('HGETALL', entry)
end
return { now_ms(), found }
