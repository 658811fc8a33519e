-- tick: let the slots of one schedule start their jobs, each once, whoever computes them and however often
--
-- Called with no slots it makes a schedule of the code known and answers how far it is. The newest definition of the code
-- counts: a worker of an older release is told that its own is outdated. One that was lost with the server's memory is made
-- anew from what the worker knows. A schedule that a user has made is what is stored, and nothing where nothing is.
--
-- KEYS queued     list  ids in order
-- KEYS ranked     zset  jobs of other priorities than the usual, by rank and instant
-- KEYS scheduled  zset  id by due time
-- KEYS schedules  zset  those of the same owner by their next slot, +inf while there is none
-- KEYS entry      hash  what is known of this one
-- KEYS workers    zset  worker by lease deadline
-- EACH record     hash  the job of a slot; a new one does not exist
-- ARGV prefix     str   of the queue's keys, for envelopes and the job before
-- ARGV id         str   of the schedule
-- ARGV me         str   worker id
-- ARGV owner      str   code | user
-- ARGV task       str
-- ARGV definition str   changes when the schedule does
-- ARGV spec       str   all that is to be known of it, but for the call
-- ARGV call       str   what its jobs are made of
-- ARGV declared_ms  int  when this worker came up with it, by the server's clock
-- ARGV after_ms   int   up to when this worker believes the schedule to be dealt with; 0 if it does not know
-- ARGV upto_ms    int   the items are all slots after that and up to this instant that are to be started
-- ARGV next_ms    int   the slot after that, -1 if there is none
-- ARGV overlap    str   allow | skip, if the job before has not ended | queue
-- ARGV most       int   so many jobs in all, 0 without end
-- ITEM job        str   id, made of schedule and slot
-- ITEM slot_ms    int   -1 for one that comes when the schedule is new
-- ITEM envelope   str
-- ITEM wishes     str   as for enqueue
-- RETURNS new | known | behind | outdated | paused | taken, by a user's | gone | ended; up to when it is dealt with | now
--         | ids of the jobs that were stored
--- @include clock
--- @include queueing
--- @include uniqueness
--- @include storing
--- @include remembering

-- A key of the wrong type is refused here, before anything is written.
redis.call('LLEN', queued)
redis.call('ZCARD', ranked)
redis.call('ZCARD', scheduled)
redis.call('ZCARD', schedules)

local now, stored = now_ms(), {}
local at = { prefix = prefix, queued = queued, ranked = ranked, scheduled = scheduled, now = now, ready = {}, front = {} }
local seen = known_of(entry)
local last = number(seen.slot_ms)

if owner == 'user' then
  if not is_live(seen, 'user') or seen.definition ~= definition then
    return { 'gone', last, now, {} }
  end
elseif is_live(seen, 'user') then
  return { 'taken', last, now, {} }
end

-- A newer release counts for as long as a worker of it lives.
local is_other = seen.owner ~= 'user' and (seen.removed_ms or seen.definition and seen.definition ~= definition)
if is_other and number(seen.removed_ms or seen.declared_ms) > declared_ms and redis.call('ZSCORE', workers, seen.worker or '') then
  return { 'outdated', last, now, {} }
end

local is_lost = not is_live(seen, owner)
local answer = is_lost and 'new' or 'known'
if is_lost then
  last = after_ms > 0 and after_ms or now
  redis.call('DEL', entry)
end
if is_lost or seen.definition ~= definition then
  redis.call('HSET', entry, 'owner', owner, 'definition', definition, 'spec', spec, 'task', task, 'declared_ms', declared_ms,
    'slot_ms', last)
  answer = 'new'
end
if answer == 'new' or owner == 'code' and upto_ms == 0 then -- of a worker that has just come up, with other keys perhaps
  redis.call('HSET', entry, 'call', call)
end
if is_lost then
  seen = known_of(entry)
end

local function unfinished(job)
  local found = job and redis.pcall('HGET', prefix .. 'job:' .. job, 'state')
  return type(found) == 'string' and UNFINISHED[found]
end

local started, begins = number(seen.started), seen.begins or owner == 'code' and answer == 'new'
local upcoming = next_ms

-- What comes while the schedule is paused, or after the last job, starts nothing, and neither does it later.
local function start(job, envelope, words, record)
  local wish = wishes_of(at, words)
  local taken = wish.unique and holder_of_key(prefix, wish.unique)
  local is_over = most > 0 and started >= most
  if is_over or redis.call('EXISTS', record) == 1 or taken or overlap == 'skip' and unfinished(seen.job) then
    return
  end
  store(at, job, record, wish)
  redis.call('SET', prefix .. 'payload:' .. job, envelope)
  seen.job, started = job, started + 1
  stored[#stored + 1] = job
end

if last >= after_ms then
  for job, slot, envelope, words, record in items() do
    if slot > now then -- the worker's clock runs ahead
      upcoming = upcoming < 0 and slot or math.min(upcoming, slot)
    elseif slot > last or slot < 0 and begins and not seen.paused then
      last = math.max(last, slot)
      if not seen.paused then
        start(job, envelope, words, record)
      end
    end
    if slot < 0 and not seen.paused then
      begins = nil
      redis.call('HDEL', entry, 'begins')
    end
  end
  queue_together(at)
  last = math.max(last, math.min(upto_ms, now))
elseif answer == 'known' then
  answer = 'behind'
end

redis.call('HSET', entry, 'slot_ms', last, 'worker', me)
if #stored > 0 then
  redis.call('HSET', entry, 'job', seen.job, 'started', started)
end
if seen.paused then
  redis.call('ZADD', schedules, '+inf', id)
  return { 'paused', last, now, stored }
end
local is_over = most > 0 and started >= most or answer ~= 'behind' and upto_ms > 0 and upcoming < 0 and not begins
if owner == 'user' and is_over then
  leave_note(schedules, entry, id, 'ended_ms', now)
  return { 'ended', last, now, stored }
end
if upcoming < 0 then
  upcoming = owner == 'user' and begins and now or '+inf'
end
redis.call('ZADD', schedules, upcoming == '+inf' and upcoming or math.max(upcoming, last + 1), id)
return { answer, last, now, stored }
