-- limiting: the gates that a job passes before it runs, and where it waits before a closed one
--
-- Needs clock, queueing, requeueing, pacing. `at` carries the queue's keys and the time. A record's `limits` are words, one for each gate,
-- the narrowest first: c.<digest>.<limit> lets so many run at once; g.<digest>.<interval_us>.<burst> lets one through per
-- interval, and so many at once after a rest (GCRA); w.<digest>.<limit>.<per_ms> so many within any such span.
--
-- A job before a closed gate waits there, oldest first, and nowhere else. Who leaves a gate of the first kind hands the permit
-- to the next in line, so that a permit belongs to a job from then on, whatever becomes of the job. The other two
-- kinds open by time: a timer goes off as long as somebody waits.

-- Waiting jobs that one timer, and timers that one call, may let go.
local GATE_LIMIT = 100

local function gates_of(limits)
  local gates = {}
  for kind, digest, first, second in string.gmatch(limits, '([cgw])%.(%x+)%.(%d+)%.?(%d*)') do
    gates[#gates + 1] = { kind = kind, digest = digest, first = tonumber(first), second = tonumber(second) }
  end
  return gates
end

local function leave_line(at, gate, id)
  redis.call('ZREM', at.prefix .. 'waiting:' .. gate.digest, id)
  redis.call('ZREM', at.held_back, id)
end

-- Gives the next in line, if it still waits; false if it does not, nil where nobody does.
local function next_in_line(at, gate)
  local id = redis.call('ZPOPMIN', at.prefix .. 'waiting:' .. gate.digest)[1]
  if not id then
    return nil
  end
  redis.call('ZREM', at.held_back, id)
  return redis.pcall('HGET', at.prefix .. 'job:' .. id, 'state') == 'queued' and id
end

local function hand_on_permits(at, gate)
  local permits, permitted = at.prefix .. 'permits:' .. gate.digest, {}
  while redis.call('SCARD', permits) < gate.first do
    local id = next_in_line(at, gate)
    if id == nil then
      break
    elseif id then
      redis.call('SADD', permits, id)
      permitted[#permitted + 1] = id
    end
  end
  to_front(at, permitted)
end

-- A job that no longer runs, or never will, gives back its permits and its places in line.
local function free_limits(at, id, limits)
  for _, gate in ipairs(gates_of(limits)) do
    leave_line(at, gate, id)
    if gate.kind == 'c' and redis.call('SREM', at.prefix .. 'permits:' .. gate.digest, id) == 1 then
      hand_on_permits(at, gate)
    end
  end
end

local function free_limits_of(at, id, record)
  local limits = redis.call('HGET', record, 'limits')
  if limits then
    free_limits(at, id, limits)
  end
end

local function set_timer(at, digest, when)
  redis.call('ZADD', at.timers, 'LT', math.ceil(when), digest)
  if redis.call('ZRANGE', at.timers, 0, 0)[1] == digest then
    wake(at.queued)
  end
end

local function hold_back(at, gate, id, seen)
  local place = number(seen.rank) + number(seen.due_ms or seen.enqueued_ms)
  redis.call('ZADD', at.prefix .. 'waiting:' .. gate.digest, place, id)
  redis.call('ZADD', at.held_back, place, id)
end

-- A permit whose job is gone, or was overwritten by somebody else, must not be taken for ever.
local function drop_dead_permits(at, permits)
  for _, id in ipairs(redis.call('SRANDMEMBER', permits, 3)) do
    local state = redis.pcall('HGET', at.prefix .. 'job:' .. id, 'state')
    if state ~= 'running' and state ~= 'queued' then
      redis.call('SREM', permits, id)
    end
  end
end

local function has_permit(at, gate, id)
  local permits = at.prefix .. 'permits:' .. gate.digest
  if redis.call('SISMEMBER', permits, id) == 1 then
    return true
  end
  if redis.call('SCARD', permits) >= gate.first then
    drop_dead_permits(at, permits)
  end
  local free = redis.call('SCARD', permits) < gate.first
  if free and redis.call('EXISTS', at.prefix .. 'waiting:' .. gate.digest) == 0 then
    redis.call('SADD', permits, id)
    return true
  end
  return false
end

-- Says whether a job may run now; else it waits before the gate that is closed. A called one was let go by a timer.
local function admit(at, id, record, seen, mark)
  local gates = gates_of(seen.limits)
  for _, gate in ipairs(gates) do
    local opens = gate.kind ~= 'c' and opens_at(at, gate)
    if opens and (opens > at.now or not seen.called and redis.call('EXISTS', at.prefix .. 'waiting:' .. gate.digest) == 1) then
      free_limits(at, id, seen.limits)
      hold_back(at, gate, id, seen)
      set_timer(at, gate.digest, math.max(opens, at.now + 1))
      return false
    end
  end
  for _, gate in ipairs(gates) do
    if gate.kind == 'c' and not has_permit(at, gate, id) then
      hold_back(at, gate, id, seen)
      hand_on_permits(at, gate)
      return false
    end
  end
  for _, gate in ipairs(gates) do
    if gate.kind ~= 'c' then
      pass(at, gate, mark)
    end
  end
  if seen.called then
    redis.call('HDEL', record, 'called')
  end
  return true
end

local function gate_of_first(at, digest)
  local id = redis.call('ZRANGE', at.prefix .. 'waiting:' .. digest, 0, 0)[1]
  local limits = id and redis.pcall('HGET', at.prefix .. 'job:' .. id, 'limits')
  for _, gate in ipairs(type(limits) == 'string' and gates_of(limits) or {}) do
    if gate.digest == digest then
      return gate
    end
  end
  return nil, id
end

local function let_go(at, gate, count)
  local called = {}
  while #called < count do
    local id = next_in_line(at, gate)
    if id == nil then
      break
    elseif id then
      redis.call('HSET', at.prefix .. 'job:' .. id, 'called', 1)
      called[#called + 1] = id
    end
  end
  to_front(at, called)
end

local function fire(at, digest)
  local gate, damaged = gate_of_first(at, digest)
  redis.call('ZREM', at.timers, digest)
  if gate then
    let_go(at, gate, math.min(GATE_LIMIT, room_at(at, gate)))
    if redis.call('EXISTS', at.prefix .. 'waiting:' .. digest) == 1 then
      local rest = gate.kind == 'g' and gate.first / 1000 or gate.second / gate.first
      redis.call('ZADD', at.timers, math.ceil(math.max(opens_at(at, gate), at.now + rest)), digest)
    end
  elseif damaged then
    redis.call('ZREM', at.prefix .. 'waiting:' .. digest, damaged)
    redis.call('ZREM', at.held_back, damaged)
    redis.call('ZADD', at.timers, at.now + 1, digest)
  end
end

-- A gate that cannot be read is looked at again after a while.
local UNREADABLE_MS = 1000

-- Let go who waits before gates that have opened. Whether they find a gate open when they are claimed is seen then.
local function fire_timers(at)
  for _, digest in ipairs(redis.call('ZRANGE', at.timers, '-inf', at.now, 'BYSCORE', 'LIMIT', 0, GATE_LIMIT)) do
    if not pcall(fire, at, digest) then
      redis.call('ZADD', at.timers, at.now + UNREADABLE_MS, digest)
    end
  end
end
