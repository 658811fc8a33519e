-- purge: delete a bounded number of waiting jobs
--
-- FLAGS allow-oom
-- KEYS queued     list  ids in order
-- KEYS suspects   list  ids one crash away from the limit
-- KEYS ranked     zset  jobs of other priorities than the usual, by rank and instant
-- KEYS held_back  zset  all jobs that wait before a closed gate
-- KEYS shelves    hash  paused tasks, and those whose shelves are to be emptied
-- KEYS scheduled  zset  id by due time
-- ARGV prefix     str   of the queue's keys, for the records of the purged jobs, and the shelves
-- ARGV limit      int
-- RETURNS how many jobs were deleted | whether some remain
--- @include clock
--- @include queueing
--- @include requeueing
--- @include pacing
--- @include limiting
--- @include notifying
--- @include finish

local deleted = 0
local at = { prefix = prefix, queued = queued, ranked = ranked, held_back = held_back, now = now_ms() }

-- An id may lie where its job no longer is; only the job that is where its id was found goes.
local function remove(id, state)
  local job = locate(at, id)
  if redis.pcall('HGET', job.record, 'state') ~= state then
    return
  end
  finish(job, 'cancelled', at.now, 0, {})
  deleted = deleted + redis.call('DEL', job.record)
  redis.call('DEL', job.payload)
end

-- A key of the wrong type is refused here, before anything is written.
redis.call('LLEN', queued)
redis.call('LLEN', suspects)
for _, set in ipairs({ ranked, held_back, scheduled }) do
  redis.call('ZCARD', set)
end
redis.call('HLEN', shelves)
for _, list in ipairs({ queued, suspects }) do
  for _, id in ipairs(redis.call('RPOP', list, limit) or {}) do
    remove(id, 'queued')
  end
end
for zset, state in pairs({ [ranked] = 'queued', [held_back] = 'queued', [scheduled] = 'scheduled' }) do
  local popped = redis.call('ZPOPMIN', zset, limit)
  for i = 1, #popped, 2 do
    remove(popped[i], state)
  end
end
-- One shelf after the other, so that many of them do not make one call long.
local shelved, budget = 0, limit
for _, task in ipairs(redis.call('HKEYS', shelves)) do
  local shelf = prefix .. 'shelf:' .. task
  local popped = budget > 0 and redis.pcall('ZPOPMIN', shelf, budget) or {} -- without any if it cannot be read
  for i = 1, #popped, 2 do
    remove(popped[i], 'queued')
  end
  budget = budget - #popped / 2
  local rest = redis.pcall('ZCARD', shelf)
  shelved = shelved + (type(rest) == 'number' and rest or 0)
end
local left = shelved + redis.call('LLEN', queued) + redis.call('LLEN', suspects) + redis.call('ZCARD', ranked)
  + redis.call('ZCARD', held_back) + redis.call('ZCARD', scheduled)
return { deleted, left > 0 and 1 or 0 }
