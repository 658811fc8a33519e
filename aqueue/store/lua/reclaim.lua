-- reclaim: take back what workers held whose lease has ended, and count a crash for each job that was running
--
-- FLAGS allow-oom
-- KEYS queued     list  ids in order
-- KEYS suspects   list  ids one crash away from the limit
-- KEYS ranked     zset  jobs of other priorities than the usual, by rank and instant
-- KEYS held_back  zset  all jobs that wait before a closed gate
-- KEYS workers    zset  worker by lease deadline
-- KEYS failed     zset  failed jobs
-- KEYS stats      hash  counters
-- ARGV prefix     str   of the queue's keys, for what an ended worker held
-- ARGV limit      int   jobs to take back in one call
-- ARGV crash_limit     int
-- ARGV result_ttl_ms   int  for jobs that were to be cancelled
-- ARGV failure_ttl_ms  int
-- ARGV failed_cap      int
-- RETURNS list of worker, its info, ids requeued, ids failed, ms since its lease ended | whether some remain
--- @include clock
--- @include counting
--- @include queueing
--- @include requeueing
--- @include pacing
--- @include limiting
--- @include notifying
--- @include finish
--- @include bury
--- @include noting
--- @include give_back

-- Ended workers that one call looks at.
local WORKERS = 10

-- A key of the wrong type is refused here, before anything is written.
redis.call('LLEN', queued)
redis.call('LLEN', suspects)
redis.call('ZCARD', ranked)
redis.call('ZCARD', failed)

local now, front = now_ms(), {}
local at = { prefix = prefix, queued = queued, ranked = ranked, held_back = held_back, now = now }

local function crashed(id, name)
  local job = locate(at, id)
  if redis.call('HGET', job.record, 'state') ~= 'running' then
    return nil
  end
  note(job.record, now, name, 'crashed', '')
  if not let_go(job, stats, now, result_ttl_ms) then
    return nil
  end
  local crashes = increase(job.record, 'crashes')
  tally(stats, 'crashed')
  if crashes >= crash_limit then
    local error = cjson.encode({
      type = 'WorkerCrashed',
      message = 'its worker died or fell silent ' .. crashes .. ' times, the last time on worker ' .. name,
      traceback = '',
      failure = 'crashed',
    })
    bury(job, failed, now, failure_ttl_ms, failed_cap, error)
    tally(stats, 'failed')
    return 'failed'
  end
  redis.call('HSET', job.record, 'state', 'queued')
  if crashes >= crash_limit - 1 then
    redis.call('LPUSH', suspects, id)
    redis.call('LPUSH', queued, TICKET)
  else
    front[#front + 1] = id
  end
  return 'requeued'
end

local function take_back(name, budget)
  local held, requeued, buried = prefix .. 'held:' .. name, {}, {}
  redis.call('HLEN', held)
  local info = redis.call('HGET', prefix .. 'worker:' .. name, 'info') or ''
  empty_inbox(queued, prefix .. 'inbox:' .. name)
  for _, id in ipairs(redis.call('HRANDFIELD', held, budget) or {}) do
    redis.call('HDEL', held, id)
    local intact, fate = pcall(crashed, id, name)
    if not intact then
      tally(stats, 'damaged')
    end
    local list = fate == 'failed' and buried or fate == 'requeued' and requeued
    if list then
      list[#list + 1] = id
    end
  end
  return requeued, buried, redis.call('EXISTS', held) == 0, info
end

local gone, budget, remain = {}, limit, 0
local expired = redis.call('ZRANGE', workers, '-inf', now, 'BYSCORE', 'LIMIT', 0, WORKERS, 'WITHSCORES')
for i = 1, #expired, 2 do
  if budget <= 0 then
    remain = 1
    break
  end
  local name = expired[i]
  -- A worker whose keys are of the wrong type stays until they are mended, and keeps nobody else waiting.
  local intact, requeued, buried, empty, info = pcall(take_back, name, budget)
  if intact then
    budget = budget - #requeued - #buried
    gone[#gone + 1] = { name, info, requeued, buried, now - tonumber(expired[i + 1]) }
    if empty then
      redis.call('DEL', prefix .. 'worker:' .. name)
      redis.call('ZREM', workers, name)
    else
      remain = 1
    end
  end
end
to_front(at, front)
return { gone, #gone > 0 and #expired == 2 * WORKERS and 1 or remain }
