-- retire: a worker leaves; whatever it still holds goes back to the front of the queue, uncounted
--
-- FLAGS allow-oom
-- KEYS queued     list  ids in order
-- KEYS ranked     zset  jobs of other priorities than the usual, by rank and instant
-- KEYS held_back  zset  all jobs that wait before a closed gate
-- KEYS inbox      list  what this worker's BLMOVE has caught
-- KEYS held       hash  id to token of this worker's jobs
-- KEYS worker     hash  this worker
-- KEYS workers    zset  worker by lease deadline
-- KEYS stats      hash  counters
-- ARGV prefix     str   of the queue's keys, for the records of the held jobs
-- ARGV me         str   worker id
-- ARGV result_ttl_ms   int  for jobs that were to be cancelled
-- RETURNS ids handed back
--- @include clock
--- @include counting
--- @include queueing
--- @include requeueing
--- @include pacing
--- @include limiting
--- @include notifying
--- @include finish
--- @include give_back

-- A key of the wrong type is refused here, before anything is written.
redis.call('LLEN', queued)
redis.call('ZCARD', ranked)
redis.call('ZCARD', workers)

local now, returned = now_ms(), {}
local at = { prefix = prefix, queued = queued, ranked = ranked, held_back = held_back, now = now }
empty_inbox(queued, inbox)
for _, id in ipairs(redis.call('HKEYS', held)) do
  if give_back(locate(at, id), stats, now, result_ttl_ms) then
    returned[#returned + 1] = id
  end
end
to_front(at, returned)
redis.call('DEL', held, worker)
redis.call('ZREM', workers, me)
return returned
