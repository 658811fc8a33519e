-- retire: a worker leaves; whatever it still holds goes back to the front of the queue, uncounted
--
-- FLAGS allow-oom
-- KEYS queued     list  ids in order
-- KEYS inbox      list  what this worker's BLMOVE has caught
-- KEYS held       hash  id to token of this worker's jobs
-- KEYS worker     hash  this worker
-- KEYS workers    zset  worker by lease deadline
-- ARGV prefix     str   of the queue's keys, for the records of the held jobs
-- ARGV me         str   worker id
-- RETURNS ids handed back
--- @include queueing

local returned = {}
empty_inbox(queued, inbox)
for _, id in ipairs(redis.call('HKEYS', held)) do
  redis.call('HSET', prefix .. 'job:' .. id, 'state', 'queued')
  redis.call('RPUSH', queued, id)
  returned[#returned + 1] = id
end
redis.call('DEL', held, worker)
redis.call('ZREM', workers, me)
return returned
