-- reschedule: give a job that waits another time
--
-- Sent twice, the second answers as the first, whatever has become of the job since: its record bears the mark of the call.
-- Its id stays in the queued list, where a claim discards it until it is queued again: to look for it would cost as much as
-- the backlog.
--
-- KEYS queued     list  ids in order
-- KEYS ranked     zset  jobs of other priorities than the usual, by rank and instant
-- KEYS held_back  zset  all jobs that wait before a closed gate
-- KEYS scheduled  zset  id by due time
-- KEYS record     hash  the job
-- ARGV prefix     str   of the queue's keys, for the gates before which it waits, and the shelf on which it lies
-- ARGV id         str
-- ARGV call       str   mark of this call
-- ARGV delay_ms   int   from now
-- ARGV at_ms      int   Unix time; 0 where the delay counts
-- RETURNS scheduled | queued | running | ended | missing; when it is due
--- @include clock
--- @include queueing
--- @include requeueing
--- @include pacing
--- @include limiting

-- A key of the wrong type is refused here, before anything is written.
redis.call('LLEN', queued)
redis.call('ZCARD', ranked)
redis.call('ZCARD', held_back)
redis.call('ZCARD', scheduled)

local now = now_ms()
local due = at_ms > 0 and at_ms or now + delay_ms
local seen = redis.call('HMGET', record, 'state', 'due_ms', 'enqueued_ms', 'expires_ms', 'limits', 'rank', 'retimed', 'shelf')
local state = seen[1]
if not state then
  return { 'missing', due }
end
if seen[7] == call then
  return { state == 'scheduled' and state or 'queued', number(seen[2] or seen[3]) }
end
if state == 'running' then
  return { 'running', due }
end
if state ~= 'queued' and state ~= 'scheduled' then
  return { 'ended', due }
end

local fields = { 'retimed', call }
if seen[4] then -- how long it may wait for its start counts from when it is due
  fields[3], fields[4] = 'expires_ms', math.max(due, now) + number(seen[4]) - number(seen[2] or seen[3])
end
if state == 'queued' then
  if due <= now then
    redis.call('HSET', record, 'retimed', call)
    return { 'queued', now }
  end
  redis.call('ZREM', ranked, id)
  if seen[8] then -- where jobs of a paused task lie
    redis.pcall('ZREM', prefix .. 'shelf:' .. seen[8], id)
    redis.call('HDEL', record, 'shelf')
  end
  if seen[5] then
    free_limits({ prefix = prefix, queued = queued, ranked = ranked, held_back = held_back, now = now }, id, seen[5])
    redis.call('HDEL', record, 'called')
  end
end
if due > now then
  schedule(queued, scheduled, id, record, due, fields)
  return { 'scheduled', due }
end
redis.call('ZREM', scheduled, id)
redis.call('HSET', record, 'state', 'queued', 'due_ms', now, unpack(fields))
if seen[6] then
  redis.call('ZADD', ranked, number(seen[6]) + now, id)
  wake(queued)
else
  redis.call('LPUSH', queued, id)
end
return { 'queued', now }
