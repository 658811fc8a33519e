-- queueing: where a job waits for its start, and how a worker that waits is woken
--
-- A job of the usual priority waits in the queued list. One of another priority waits in the sorted set of the ranked, by
-- the rank that its record bears and by since when it waits; those below USUAL_RANK come before the list, others after it.
--
-- A worker parks only while the queued list is empty. Work that appears elsewhere pushes a ticket onto an
-- empty list; a list that is not empty wakes workers by itself, so tickets cannot pile up.

local TICKET = 'wake'

-- Nine levels below the highest priority; each is as wide as all instants until the year 2248.
local USUAL_RANK = 4 * 2 ^ 43

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

-- Rank and the instant since when the job waits; no rank is the usual one.
local function place_of(record)
  local seen = redis.pcall('HMGET', record, 'rank', 'due_ms', 'enqueued_ms') -- without any if it cannot be read
  return seen[1] and number(seen[1]), number(seen[2] or seen[3])
end
