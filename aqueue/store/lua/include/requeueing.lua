-- requeueing: put back to the front what a worker does not run

local CHUNK = 1000 -- values that are passed on at once

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
