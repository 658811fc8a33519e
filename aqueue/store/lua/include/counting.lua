-- counting: counters of the queue and of one job, none of which may cost a transition that has begun
--
-- Needs clock.

local function tally(stats, name, by)
  redis.pcall('HINCRBY', stats, name, by or 1)
end

-- What is no number counts as 0 here too.
local function increase(record, field)
  local raised = math.max(0, math.floor(number(redis.call('HGET', record, field)))) + 1
  redis.call('HSET', record, field, raised)
  return raised
end
