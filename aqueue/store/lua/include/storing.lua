-- storing: put one new job where it waits, with what it asks for
--
-- Needs clock, queueing, uniqueness. `at` carries the queue's keys and the time, and collects the ids that are queued together at
-- the end: `ready` ones, and those for the `front`. The words of what a job asks for are told in enqueue.lua.

-- Of what a job asks for, this goes into its record as it is.
local KEPT = { 'rank', 'limits', 'result_ttl_ms', 'failure_ttl_ms', 'unique', 'scope' }

local function wishes_of(at, words)
  local wish = {}
  for name, value in string.gmatch(words, '(%S+)=(%S+)') do
    wish[name] = value
  end
  wish.due = wish.at_ms and number(wish.at_ms) or at.now + number(wish.delay_ms)
  return wish
end

local function fields_of(at, wish)
  local fields = { 'enqueued_ms', at.now }
  if wish.ttl_ms then
    fields[3], fields[4] = 'expires_ms', math.max(wish.due, at.now) + number(wish.ttl_ms)
  end
  for _, name in ipairs(KEPT) do
    if wish[name] then
      fields[#fields + 1] = name
      fields[#fields + 1] = wish[name]
    end
  end
  return fields
end

-- Puts a job where it waits; the usual ones are queued together at the end.
local function line_up(at, id, wish)
  if wish.rank then
    redis.call('ZADD', at.ranked, number(wish.rank) + (wish.front and 0 or math.max(wish.due, at.now)), id)
    wake(at.queued)
  elseif wish.front then
    at.front[#at.front + 1] = id
  else
    at.ready[#at.ready + 1] = id
  end
end

local function store(at, id, record, wish)
  if wish.unique then
    take_key(at.prefix .. 'unique:' .. wish.unique, id, wish.window_ms)
  end
  if wish.due > at.now then
    schedule(at.queued, at.scheduled, id, record, wish.due, fields_of(at, wish))
  else
    redis.call('HSET', record, 'state', 'queued', unpack(fields_of(at, wish)))
    line_up(at, id, wish)
  end
end

local function queue_together(at)
  if #at.ready > 0 then
    redis.call('LPUSH', at.queued, unpack(at.ready))
  end
  if #at.front > 0 then
    redis.call('RPUSH', at.queued, unpack(at.front))
  end
end
