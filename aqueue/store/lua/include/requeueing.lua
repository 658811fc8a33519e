-- requeueing: put back to the front what a worker does not run
--
-- Needs clock, queueing. `at` carries the queue's keys.

local CHUNK = 1000 -- values that are passed on at once

-- Jobs that come back go before what waits, oldest first: ids sort by time. A ranked one goes where it was.
local function to_front(at, ids)
  local usual = {}
  for _, id in ipairs(ids) do
    local rank, since = place_of(at.prefix .. 'job:' .. id)
    if rank then
      redis.call('ZADD', at.ranked, rank + since, id)
      wake(at.queued)
    else
      usual[#usual + 1] = id
    end
  end
  table.sort(usual, function(one, other) return one > other end)
  for first = 1, #usual, CHUNK do
    redis.call('RPUSH', at.queued, unpack(usual, first, math.min(#usual, first + CHUNK - 1)))
  end
end

-- What a dead or paused worker's BLMOVE has caught goes back to the front, in its old order.
local function empty_inbox(queued, inbox)
  while redis.call('LMOVE', inbox, queued, 'LEFT', 'RIGHT') do end
end
