-- pacing: gates that open by time, and who has passed them
--
-- Needs clock. `at` carries the prefix of the queue's keys and the time. A gate of kind g lets one through per `first` us, and
-- `second` at once after a rest (GCRA); one of kind w lets `first` through within any span of `second` ms.

-- When a gate of the second kind will have rested. What lies further ahead than it can was noted before the clock was
-- set back, and says no more than that the gate is used up.
local function rested_at(at, gate)
  local noted = number(redis.call('GET', at.prefix .. 'pace:' .. gate.digest))
  return math.min(noted, at.now + gate.first / 1000 * gate.second)
end

-- Starts that lie ahead were noted before the clock was set back; from now on they count as made now.
local function bring_back(at, pace)
  for _, mark in ipairs(redis.call('ZRANGE', pace, '(' .. at.now, '+inf', 'BYSCORE')) do
    redis.call('ZADD', pace, at.now, mark)
  end
end

-- From when on a gate that opens by time lets somebody through.
local function opens_at(at, gate)
  local pace = at.prefix .. 'pace:' .. gate.digest
  if gate.kind == 'g' then
    return rested_at(at, gate) - gate.first / 1000 * (gate.second - 1)
  end
  bring_back(at, pace)
  local last = redis.call('ZRANGE', pace, -gate.first, -gate.first, 'WITHSCORES')
  return last[2] and tonumber(last[2]) + gate.second or 0
end

-- How many it lets through at this instant, one after the other.
local function room_at(at, gate)
  local pace = at.prefix .. 'pace:' .. gate.digest
  if gate.kind == 'g' then
    local interval, full = gate.first / 1000, math.max(at.now, rested_at(at, gate))
    return math.floor((at.now - full) / interval) + gate.second
  end
  bring_back(at, pace)
  return gate.first - redis.call('ZCOUNT', pace, '(' .. at.now - gate.second, '+inf')
end

local function pass(at, gate, mark)
  local pace = at.prefix .. 'pace:' .. gate.digest
  if gate.kind == 'g' then
    local full = math.max(at.now, rested_at(at, gate)) + gate.first / 1000
    redis.call('SET', pace, string.format('%.3f', full), 'PX', math.ceil(full - at.now) + 1)
  else
    redis.call('ZADD', pace, at.now, mark)
    redis.call('ZREMRANGEBYRANK', pace, 0, -gate.first - 1)
    redis.call('PEXPIRE', pace, gate.second)
  end
end
