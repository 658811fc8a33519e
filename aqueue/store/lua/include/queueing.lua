-- queueing: how a job that is due later begins to wait, and how a worker that waits is woken
--
-- A worker parks only while the queued list is empty. Work that appears elsewhere pushes a ticket onto an
-- empty list; a list that is not empty wakes workers by itself, so tickets cannot pile up.

local TICKET = 'wake'

local function schedule(queued, scheduled, id, record, due_ms, fields)
  redis.call('HSET', record, 'state', 'scheduled', 'due_ms', due_ms, unpack(fields))
  redis.call('ZADD', scheduled, due_ms, id)
  if redis.call('ZRANGE', scheduled, 0, 0)[1] == id and redis.call('LLEN', queued) == 0 then
    redis.call('LPUSH', queued, TICKET)
  end
end
