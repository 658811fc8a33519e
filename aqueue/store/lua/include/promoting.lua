-- promoting: queue the scheduled jobs that are due
--
-- Needs clock, queueing. `at` carries the queue's keys and the time.

-- A damaged record must not keep the others from their start; its id goes to the queue, where a claim discards it.
local function rank_and_queue(record)
  local rank, since = place_of(record)
  redis.call('HSET', record, 'state', 'queued')
  return rank, since
end

local function promote(at, limit)
  local due, usual = redis.call('ZRANGE', at.scheduled, '-inf', at.now, 'BYSCORE', 'LIMIT', 0, limit), {}
  if #due == 0 then
    return 0
  end
  redis.call('LLEN', at.queued) -- a key of the wrong type is refused here, before anything is written
  redis.call('ZCARD', at.ranked)
  for _, id in ipairs(due) do
    local intact, rank, since = pcall(rank_and_queue, at.prefix .. 'job:' .. id)
    if intact and rank then
      redis.call('ZADD', at.ranked, rank + since, id)
    else
      usual[#usual + 1] = id
    end
  end
  redis.call('ZREM', at.scheduled, unpack(due))
  if #usual > 0 then
    redis.call('LPUSH', at.queued, unpack(usual))
  else
    wake(at.queued)
  end
  return #due
end
