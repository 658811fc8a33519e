-- stats: what a queue holds at this moment
--
-- FLAGS no-writes
-- KEYS queued     list  ids in order
-- KEYS suspects   list  ids one crash away from the limit
-- KEYS scheduled  zset  id by due time
-- KEYS failed     zset  failed jobs
-- KEYS workers    zset  worker by lease deadline
-- KEYS paused     str   present while paused
-- KEYS stats      hash  counters
-- ARGV prefix     str   of the queue's keys, for the workers and the oldest job
-- RETURNS queued scheduled running failed | paused | age of the oldest queued job in ms, -1 none | counters | workers
--- @include clock
--- @include queueing

-- Entries at the old end among which the oldest job is looked for; tickets lie there singly.
local LOOK = 10

local now, running, list = now_ms(), 0, {}
local waiting, oldest = 0, nil

-- What a parked fetch has caught waits still, before all that lies in the queue.
local function count_waiting(ids)
  waiting = waiting + redis.call('LLEN', ids)
  for _, id in ipairs(redis.call('LRANGE', ids, -LOOK, -1)) do
    if id == TICKET then
      waiting = waiting - 1
    else
      oldest = id
    end
  end
end

count_waiting(queued)
local alive = redis.call('ZRANGE', workers, 0, -1, 'WITHSCORES')
for i = 1, #alive, 2 do
  local count = redis.call('HLEN', prefix .. 'held:' .. alive[i])
  running = running + count
  count_waiting(prefix .. 'inbox:' .. alive[i])
  list[#list + 1] = { alive[i], redis.call('HGET', prefix .. 'worker:' .. alive[i], 'info') or '', count, tonumber(alive[i + 1]) - now }
end

local age = -1
if oldest then
  local seen = redis.pcall('HMGET', prefix .. 'job:' .. oldest, 'due_ms', 'enqueued_ms')
  local since = not seen.err and (seen[1] or seen[2])
  age = since and math.max(0, now - number(since)) or -1
end
return {
  { waiting + redis.call('LLEN', suspects), redis.call('ZCARD', scheduled), running, redis.call('ZCARD', failed) },
  redis.call('EXISTS', paused),
  age,
  redis.call('HGETALL', stats),
  list,
}
