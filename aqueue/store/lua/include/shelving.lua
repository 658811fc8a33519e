-- shelving: where jobs of paused tasks wait, and how they come back
--
-- Needs clock, queueing, requeueing, limiting. `at` carries the queue's keys and the time.
--
-- A task that is paused has a shelf, on which each claim puts the jobs of the task that it meets, so that they stand in
-- nobody's way. Once the task is resumed, claims take from its shelf before they take from the queue, until it is
-- empty: nothing is ever moved back, however much lies there. Jobs of a priority keep their place on the shelf; the usual ones lie
-- before them, in the order in which they came, on places that no priority has.
--
-- The hash of the shelves says for each task since when it is paused, or OPEN.

local OPEN = '0'

-- Below all places in the ranked set, whatever the priority; its numbers are exact.
local SHELF_START = -2 ^ 52

-- An envelope begins with its task. Nothing is read beyond, and nothing at all unless a task is paused.
local HEAD_BYTES = 4096

-- What stands between the quotes, unless it is spelled with escapes, which JSON is left to read.
local function task_of(head)
  local sealed = string.match(head, '^signed %l+ %S+ (%S+)') or string.match(head, '^encrypted %l+ %S+ (%S+)')
  local task = sealed or string.match(head, '^%s*%[[^,"]*,%s*"([^"\\]*)"')
  if task then
    return task
  end
  local start = string.match(head, '^%s*%[[^,"]*,%s*()"')
  local literal = start and string.sub(head, start)
  local stop = literal and string.find(string.gsub(literal, '\\.', '__'), '"', 2, true)
  local readable, texts = pcall(cjson.decode, '[' .. string.sub(literal or '', 1, stop or 0) .. ']')
  return readable and texts[1] or nil
end

-- Learns which tasks are paused, each with its shelf, and which no longer are and have a shelf still.
local function read_shelves(at)
  local entries, open_tasks, open_shelves = redis.call('HGETALL', at.shelves), {}, {}
  for i = 1, #entries, 2 do
    local task, shelf = entries[i], at.prefix .. 'shelf:' .. entries[i]
    if entries[i + 1] == OPEN then
      open_tasks[#open_tasks + 1], open_shelves[#open_shelves + 1] = task, shelf
    else
      at.paused_tasks = at.paused_tasks or {}
      at.paused_tasks[task] = shelf
    end
  end
  if #open_tasks > 0 then
    at.open_tasks, at.open_shelves = open_tasks, open_shelves
  end
end

local function next_place(at, shelf)
  at.places = at.places or {}
  local last = at.places[shelf]
    or tonumber(redis.call('ZRANGE', shelf, '(0', '-inf', 'BYSCORE', 'REV', 'LIMIT', 0, 1, 'WITHSCORES')[2] or SHELF_START)
  at.places[shelf] = math.max(last + 1, SHELF_START + at.now)
  return at.places[shelf]
end

-- Permits and places before gates are for jobs that may run. Whom a timer has let go did not pass, so the next may at once.
local function leave_gates(at, id, record, seen)
  redis.call('HDEL', record, 'called')
  free_limits(at, id, seen.limits)
  for _, gate in ipairs(seen.called and gates_of(seen.limits) or {}) do
    if redis.call('EXISTS', at.prefix .. 'waiting:' .. gate.digest) == 1 and gate.kind ~= 'c' then
      set_timer(at, gate.digest, at.now)
    end
  end
end

-- Says whether the job's task is paused, and puts the job aside if so.
local function shelve(at, id, record, seen)
  local head = redis.pcall('GETRANGE', at.prefix .. 'payload:' .. id, 0, HEAD_BYTES - 1)
  local task = type(head) == 'string' and task_of(head)
  local shelf = task and at.paused_tasks[task]
  if not shelf then
    return false
  end
  local place = seen.rank and number(seen.rank) + number(seen.due_ms or seen.enqueued_ms)
  redis.call('ZADD', shelf, place or next_place(at, shelf), id)
  redis.call('HSET', record, 'shelf', task)
  if seen.limits then
    pcall(leave_gates, at, id, record, seen) -- a gate that cannot be read keeps a permit, and nobody from the shelf
  end
  return true
end

local function pop(zset, count, from, below)
  local ids = redis.call('ZRANGE', zset, from, below, 'BYSCORE', 'LIMIT', 0, count)
  return #ids > 0 and redis.call('ZREM', zset, unpack(ids)) and ids
end

-- Of several sorted sets, the one with the lowest head gives what it has up to the head of the next. A shelf that
-- cannot be read is left alone.
local function pop_lowest(zsets, count, from, below)
  local lowest, head, next_head
  for _, zset in ipairs(zsets) do
    local first = redis.pcall('ZRANGE', zset, from, below, 'BYSCORE', 'LIMIT', 0, 1, 'WITHSCORES')
    local place = not first.err and tonumber(first[2])
    if place and (not head or place < head) then
      lowest, head, next_head = zset, place, head
    elseif place and (not next_head or place < next_head) then
      next_head = place
    end
  end
  return lowest and pop(lowest, count, from, next_head and string.format('%.0f', next_head) or below)
end

-- Jobs of other priorities than the usual: from the queue, and from the shelves that are open.
local function pop_ranked(at, count, below)
  if not at.open_shelves then
    return pop(at.ranked, count, '-inf', below)
  end
  local zsets = { unpack(at.open_shelves) }
  zsets[#zsets + 1] = at.ranked
  return pop_lowest(zsets, count, '0', below)
end

-- Jobs of the usual priority that come back before all that wait in the queue.
local function pop_shelved(at, count)
  return at.open_shelves and pop_lowest(at.open_shelves, count, '-inf', '(0')
end

-- Forgets the shelves that have been emptied; what still lies on one is for whoever has a free slot.
local function tidy_shelves(at)
  for i, shelf in ipairs(at.open_shelves or {}) do
    local left = redis.pcall('ZCARD', shelf)
    if left == 0 then
      redis.call('HDEL', at.shelves, at.open_tasks[i])
    elseif type(left) == 'number' then
      wake(at.queued)
    end
  end
end
