-- mend: put jobs where they belong, each only if it still has the fault that was found
--
-- Nothing here starts a job that may be running: a job that its worker does not hold is given back into that worker's
-- hands, and heartbeat and reclaim find out what became of it. An id that a list holds twice runs once, since a claim
-- takes queued jobs only.
--
-- FLAGS allow-oom
-- KEYS queued     list  ids in order
-- KEYS suspects   list  ids one crash away from the limit
-- KEYS ranked     zset  jobs of other priorities than the usual, by rank and instant
-- KEYS held_back  zset  all jobs that wait before a closed gate
-- KEYS shelves    hash  paused tasks, and those whose shelves are to be emptied
-- KEYS scheduled  zset  id by due time
-- KEYS failed     zset  failed jobs
-- KEYS workers    zset  worker by lease deadline
-- KEYS stats      hash  counters
-- EACH record     hash  the job
-- EACH payload    str   its envelope
-- ARGV prefix     str   of the queue's keys, for what the workers hold
-- ARGV look       int   as for examine
-- ARGV lease_ms   int   for a worker that the fleet does not know
-- ARGV result_ttl_ms   int  for jobs that were to be cancelled
-- ARGV failure_ttl_ms  int
-- ARGV failed_cap      int
-- ITEM id         str
-- ITEM found      str   the fault
-- RETURNS ids mended
--- @include clock
--- @include counting
--- @include queueing
--- @include requeueing
--- @include pacing
--- @include limiting
--- @include notifying
--- @include finish
--- @include bury
--- @include give_back
--- @include diagnosis

local at = {
  prefix = prefix, queued = queued, suspects = suspects, ranked = ranked, held_back = held_back, shelves = shelves, scheduled = scheduled, failed = failed, workers = workers,
  now = now_ms(), look = look,
}

local function give_up(job, type_, message)
  redis.call('ZREM', scheduled, job.id)
  redis.call('HSETNX', job.record, 'enqueued_ms', at.now)
  bury(job, failed, at.now, failure_ttl_ms, failed_cap, cjson.encode({ type = type_, message = message, traceback = '' }))
  tally(stats, 'failed')
end

local remedies = {}

function remedies.queued_nowhere(job)
  redis.call('ZREM', held_back, job.id)
  to_front(at, { job.id })
end

function remedies.scheduled_nowhere(job)
  local due = number(redis.call('HGET', job.record, 'due_ms'))
  schedule(queued, scheduled, job.id, job.record, due > 0 and due or at.now, {})
end

function remedies.running_nowhere(job)
  local token = redis.call('HGET', job.record, 'token')
  local holder = holder_of(token)
  if holder then
    redis.call('HSET', prefix .. 'held:' .. holder, job.id, token)
    redis.call('ZADD', workers, 'NX', at.now + lease_ms, holder)
  elseif give_back(job, stats, at.now, result_ttl_ms) then
    to_front(at, { job.id })
  end
end

function remedies.failed_unlisted(job)
  local left_ms = redis.call('PTTL', job.record)
  redis.call('ZADD', failed, left_ms < 0 and '+inf' or at.now + left_ms, job.id)
end

function remedies.due_without_job(job)
  redis.call('ZREM', scheduled, job.id)
end

function remedies.failed_without_job(job)
  redis.call('ZREM', failed, job.id)
end

-- Whether these have run nobody knows any more, so people decide.
function remedies.record_lost(job)
  give_up(job, 'RecordLost', 'its record was lost, and with it whether it has run; run it again if that does no harm')
end

function remedies.arguments_lost(job)
  give_up(job, 'ArgumentsLost', 'its arguments were lost, so it can never run; enqueue it anew')
end

-- A key of the wrong type is refused here, before anything is written.
redis.call('LLEN', queued)
redis.call('LLEN', suspects)
for _, set in ipairs({ ranked, held_back, scheduled, failed, workers }) do
  redis.call('ZCARD', set)
end
redis.call('HLEN', shelves)

local mended = {}
for id, found, record, payload in items() do
  local remedy = remedies[found]
  if remedy and diagnose(at, id, record, payload) == found then
    remedy({ at = at, id = id, record = record, payload = payload })
    mended[#mended + 1] = id
  end
end
return mended
