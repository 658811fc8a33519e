-- purge: delete a bounded number of waiting or of failed jobs
--
-- FLAGS allow-oom
-- KEYS queued     list  ids in order
-- KEYS suspects   list  ids one crash away from the limit
-- KEYS scheduled  zset  id by due time
-- KEYS failed     zset  failed jobs
-- ARGV prefix     str   of the queue's keys, for the records of the purged jobs
-- ARGV what       str   waiting | failed
-- ARGV limit      int
-- RETURNS how many jobs were deleted | whether some remain
--- @include clock
--- @include finish

local now, deleted = now_ms(), 0

-- An id may lie where its job no longer is; only the job that is where its id was found goes.
local function remove(id, state)
  local job = locate(prefix, id)
  if redis.pcall('HGET', job.record, 'state') ~= state then
    return
  end
  if state ~= 'failed' then
    finish(job, 'cancelled', now, 0, {})
  end
  deleted = deleted + redis.call('DEL', job.record)
  redis.call('DEL', job.payload)
end

-- A key of the wrong type is refused here, before anything is written.
redis.call('LLEN', queued)
redis.call('LLEN', suspects)
redis.call('ZCARD', scheduled)
if what == 'failed' then
  local pairs_ = redis.call('ZPOPMIN', failed, limit)
  for i = 1, #pairs_, 2 do
    remove(pairs_[i], 'failed')
  end
  return { deleted, redis.call('ZCARD', failed) > 0 and 1 or 0 }
end
for _, list in ipairs({ queued, suspects }) do
  for _, id in ipairs(redis.call('RPOP', list, limit) or {}) do
    remove(id, 'queued')
  end
end
local due = redis.call('ZPOPMIN', scheduled, limit)
for i = 1, #due, 2 do
  remove(due[i], 'scheduled')
end
local left = redis.call('LLEN', queued) + redis.call('LLEN', suspects) + redis.call('ZCARD', scheduled)
return { deleted, left > 0 and 1 or 0 }
