-- tick: let the slots of one schedule start their jobs, each once, whoever computes them and however often
--
-- Called with no slots it makes the schedule known and answers how far it is. The newest definition counts: a worker of
-- an older release is told that its own is outdated. A schedule that was lost with the server's memory is made anew from
-- what the worker knows.
--
-- KEYS queued     list  ids in order
-- KEYS ranked     zset  jobs of other priorities than the usual, by rank and instant
-- KEYS scheduled  zset  id by due time
-- KEYS schedules  zset  schedule by its next slot, +inf once there is none
-- KEYS entry      hash  what is known of this one
-- KEYS workers    zset  worker by lease deadline
-- EACH record     hash  the job of a slot; a new one does not exist
-- ARGV prefix     str   of the queue's keys, for envelopes and the job before
-- ARGV id         str   of the schedule
-- ARGV me         str   worker id
-- ARGV task       str
-- ARGV definition str   changes when the schedule does
-- ARGV declared_ms  int  when this worker came up with it, by the server's clock
-- ARGV after_ms   int   up to when this worker believes the schedule to be dealt with; 0 if it does not know
-- ARGV upto_ms    int   the items are all slots after that and up to this instant that are to be started
-- ARGV next_ms    int   the slot after that, -1 if there is none
-- ARGV overlap    str   allow | skip, if the job before has not ended | queue
-- ITEM job        str   id, made of schedule and slot
-- ITEM slot_ms    int   -1 for one that comes when the schedule is new
-- ITEM envelope   str
-- ITEM wishes     str   as for enqueue
-- RETURNS new | known | behind | outdated | up to when it is dealt with | now | how many jobs were stored
--- @include clock
--- @include queueing
--- @include uniqueness
--- @include storing

-- A key of the wrong type is refused here, before anything is written.
redis.call('LLEN', queued)
redis.call('ZCARD', ranked)
redis.call('ZCARD', scheduled)
redis.call('ZCARD', schedules)

local now, stored = now_ms(), 0
local at = { prefix = prefix, queued = queued, ranked = ranked, scheduled = scheduled, now = now, ready = {}, front = {} }
local seen = redis.call('HMGET', entry, 'definition', 'declared_ms', 'slot_ms', 'job', 'removed_ms', 'worker')
local last = number(seen[3])

-- A newer release counts for as long as a worker of it lives.
local is_other = seen[5] or seen[1] and seen[1] ~= definition
if is_other and number(seen[5] or seen[2]) > declared_ms and redis.call('ZSCORE', workers, seen[6] or '') then
  return { 'outdated', last, now, 0 }
end

local answer = seen[3] and 'known' or 'new'
if not seen[3] then
  last = after_ms > 0 and after_ms or now
end
if seen[1] ~= definition or not seen[3] then
  redis.call('DEL', entry)
  redis.call('HSET', entry, 'definition', definition, 'declared_ms', declared_ms, 'slot_ms', last, 'task', task)
  answer = 'new'
end

local function unfinished(job)
  local found = job and redis.pcall('HGET', prefix .. 'job:' .. job, 'state')
  return type(found) == 'string' and UNFINISHED[found]
end

if last >= after_ms then
  for job, slot, envelope, words, record in items() do
    local comes = slot > last and slot <= now or slot < 0 and answer == 'new'
    if comes then
      last = math.max(last, slot)
      local wish = wishes_of(at, words)
      local taken = wish.unique and holder_of_key(prefix, wish.unique)
      if redis.call('EXISTS', record) == 0 and not taken and not (overlap == 'skip' and unfinished(seen[4])) then
        store(at, job, record, wish)
        redis.call('SET', prefix .. 'payload:' .. job, envelope)
        seen[4], stored = job, stored + 1
      end
    end
  end
  queue_together(at)
  last = math.max(last, math.min(upto_ms, now))
elseif answer == 'known' then
  answer = 'behind'
end

redis.call('HSET', entry, 'slot_ms', last, 'worker', me)
if seen[4] then
  redis.call('HSET', entry, 'job', seen[4])
end
redis.call('ZADD', schedules, next_ms < 0 and '+inf' or math.max(next_ms, last + 1), id)
return { answer, last, now, stored }
