-- stats: what a queue holds at this moment
--
-- FLAGS no-writes
-- KEYS queued     list  ids in order
-- KEYS suspects   list  ids one crash away from the limit
-- KEYS ranked     zset  jobs of other priorities than the usual, by rank and instant
-- KEYS held_back  zset  all jobs that wait before a closed gate
-- KEYS scheduled  zset  id by due time
-- KEYS failed     zset  failed jobs
-- KEYS workers    zset  worker by lease deadline
-- KEYS paused     str   present while paused
-- KEYS stats      hash  counters
-- ARGV prefix     str   of the queue's keys, for the workers and the oldest job
-- RETURNS queued scheduled running failed, held back of the queued | paused | age of the oldest queued job in ms, -1 none | counters | workers
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
for _, id in ipairs({ oldest or TICKET, redis.call('ZRANGE', ranked, 0, 0)[1], redis.call('ZRANGE', held_back, 0, 0)[1] }) do
  local seen = redis.pcall('HMGET', prefix .. 'job:' .. id, 'due_ms', 'enqueued_ms')
  local since = not seen.err and (seen[1] or seen[2])
  age = since and math.max(age, now - number(since)) or age
end
return {
  {
    waiting + redis.call('LLEN', suspects) + redis.call('ZCARD', ranked) + redis.call('ZCARD', held_back),
    redis.call('ZCARD', scheduled),
    running,
    redis.call('ZCARD', failed),
    redis.call('ZCARD', held_back),
  },
  redis.call('EXISTS', paused),
  age,
  redis.call('HGETALL', stats),
  list,
}
