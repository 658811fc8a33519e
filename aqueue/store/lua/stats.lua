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
-- KEYS shelves    hash  paused tasks, and those whose shelves are to be emptied
-- KEYS stats      hash  counters
-- ARGV prefix     str   of the queue's keys, for the workers, the shelves and the oldest job
-- RETURNS queued scheduled running failed, held back of the queued | paused | age of the oldest queued job that is not
--         of a paused task in ms, -1 none | counters | workers | shelves: task, ms since its pause, -1 if it is over, jobs
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

local heads, on_shelves = { oldest or TICKET }, {}
local entries = redis.call('HGETALL', shelves)
for i = 1, #entries, 2 do
  local shelf, since = prefix .. 'shelf:' .. entries[i], number(entries[i + 1])
  local jobs = redis.pcall('ZCARD', shelf)
  jobs = type(jobs) == 'number' and jobs or 0 -- none where it cannot be read
  waiting = waiting + jobs
  if jobs > 0 and since == 0 then
    heads[#heads + 1] = redis.call('ZRANGE', shelf, 0, 0)[1]
  end
  on_shelves[#on_shelves + 1] = { entries[i], since > 0 and math.max(0, now - since) or -1, jobs }
end
for _, zset in ipairs({ ranked, held_back }) do
  heads[#heads + 1] = redis.call('ZRANGE', zset, 0, 0)[1]
end

local age = -1
for _, id in ipairs(heads) do
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
  on_shelves,
}
