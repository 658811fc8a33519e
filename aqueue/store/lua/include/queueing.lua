-- queueing: the two ways in which a job begins to wait
--
-- A worker parks only while the queued list is empty. Work that appears elsewhere pushes a ticket onto an
-- empty list; a list that is not empty wakes workers by itself, so tickets cannot pile up.

local TICKET = 'wake'
local CHUNK = 1000 -- values that are passed on at once

local function wake(queued)
  if redis.call('LLEN', queued) == 0 then
    redis.call('LPUSH', queued, TICKET)
  end
end

local function schedule(queued, scheduled, id, record, due_ms, fields)
  redis.call('HSET', record, 'state', 'scheduled', 'due_ms', due_ms, unpack(fields))
  redis.call('ZADD', scheduled, due_ms, id)
  if redis.call('ZRANGE', scheduled, 0, 0)[1] == id then
    wake(queued)
  end
end

local function promote(prefix, queued, scheduled, now, limit)
  local due = redis.call('ZRANGE', scheduled, '-inf', now, 'BYSCORE', 'LIMIT', 0, limit)
  if #due > 0 then
    for _, id in ipairs(due) do
      redis.call('HSET', prefix .. 'job:' .. id, 'state', 'queued')
    end
    redis.call('ZREM', scheduled, unpack(due))
    redis.call('LPUSH', queued, unpack(due))
  end
  return #due
end

-- Jobs that come back go before what waits, oldest first: ids sort by time.
local function to_front(queued, ids)
  table.sort(ids, function(one, other) return one > other end)
  for first = 1, #ids, CHUNK do
    redis.call('RPUSH', queued, unpack(ids, first, math.min(#ids, first + CHUNK - 1)))
  end
end

-- What a dead or paused worker's BLMOVE has caught goes back to the front, in its old order.
local function empty_inbox(queued, inbox)
  while redis.call('LMOVE', inbox, queued, 'LEFT', 'RIGHT') do end
end
