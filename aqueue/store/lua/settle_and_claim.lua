-- settle_and_claim: store how runs have ended, then lease waiting jobs into the free slots
--
-- One worker's turn at one queue. Turns are numbered; a turn that is sent again, because its answer was lost,
-- is answered again and does nothing.
--
-- FLAGS allow-oom  a full server must be able to drain
-- KEYS queued     list  ids in order
-- KEYS suspects   list  ids one crash away from the limit
-- KEYS ranked     zset  jobs of other priorities than the usual, by rank and instant
-- KEYS held_back  zset  all jobs that wait before a closed gate
-- KEYS timers     zset  gate that opens by time, by when it lets go who waits
-- KEYS scheduled  zset  id by due time
-- KEYS inbox      list  what this worker's BLMOVE has caught
-- KEYS held       hash  id to token of this worker's jobs
-- KEYS worker     hash  this worker
-- KEYS workers    zset  worker by lease deadline
-- KEYS failed     zset  failed jobs
-- KEYS paused     str   present while paused
-- KEYS shelves    hash  paused tasks, and those whose shelves are to be emptied
-- KEYS stats      hash  counters
-- ARGV prefix     str   of the queue's keys, for the records of jobs
-- ARGV me         str   worker id
-- ARGV turn       int   number of this turn
-- ARGV free       int   slots to fill
-- ARGV lease_ms   int
-- ARGV crash_limit     int
-- ARGV result_ttl_ms   int  for jobs that expire here
-- ARGV failed_cap      int
-- ITEM id         str
-- ITEM token      str   handed out by the claim
-- ITEM ending     str   four words: outcome, of completed | retried | failed | cancelled | released | limited; delay_ms;
--                       ttl_ms, where 0 keeps nothing and -1 is for ever; and what is told of the run: of a completed one
--                       its task, of a failed one type and message of its error, in short
-- ITEM body       str   result, error, why it is released, or by what it is limited
-- RETURNS ids refused with a lost lease | ids leased | their facts (leasing) | their envelopes | now
--         | ms until the next job is due, -1 none | OK PAUSED MORE
--         | ids expired and ids held back by a limit, where there are any
--- @include clock
--- @include counting
--- @include queueing
--- @include requeueing
--- @include notifying
--- @include pacing late
--- @include limiting late
--- @include finish late
--- @include bury late
--- @include noting late
--- @include promoting late
--- @include outcomes late
--- @include shelving late
--- @include settling
--- @include leasing
--- @include claiming
--- @include answering

local token = me .. '/' .. turn
local mine = redis.call('HMGET', worker, 'turn', 'suspect', 'refused')
local at = {
  me = me, prefix = prefix, queued = queued, suspects = suspects, ranked = ranked, held_back = held_back, timers = timers,
  scheduled = scheduled, inbox = inbox, held = held, shelves = shelves, worker = worker, failed = failed, stats = stats, now = now_ms(), suspect = mine[2], crash_limit = crash_limit,
  result_ttl_ms = result_ttl_ms, failed_cap = failed_cap, front = {},
}

if mine[1] and number(mine[1]) >= turn then
  return answer_again(at, token, mine[3])
end
if at.suspect and redis.call('HEXISTS', held, at.suspect) == 0 then
  at.suspect = false -- it was handed back by extend
end

-- What this worker holds of the items, asked for at once.
-- A key of the wrong type is refused here, before any outcome is written and before anything is claimed.
local function held_tokens()
  local ids, plain = {}, true
  for id, _, words in items() do
    ids[#ids + 1] = id
    plain = plain and string.find(words, 'completed ', 1, true) == 1
  end
  if not plain then
    redis.call('LLEN', queued)
    for _, set in ipairs({ ranked, scheduled, failed }) do
      redis.call('ZCARD', set)
    end
  end
  if #ids > 0 then
    return redis.call('HMGET', held, unpack(ids))
  end
  redis.call('HLEN', held)
  return {}
end

redis.call('ZADD', workers, at.now + lease_ms, me)

local refused, settled, spent, counts = {}, {}, {}, {}
local tokens, item, records, payloads = held_tokens(), 0, prefix .. 'job:', prefix .. 'payload:'
for id, lease, words, body in items() do
  item = item + 1
  local record = records .. id
  if tokens[item] == lease then
    local run = ending(words)
    local became = run.outcome
    if became == 'completed' and complete_plain(at, id, record, run, body) then
      spent[#spent + 1] = payloads .. id
    else
      became = settle(at, locate(at, id), run, body)
    end
    settled[#settled + 1] = id
    counts[became] = (counts[became] or 0) + 1
    if id == at.suspect then
      redis.call('HDEL', worker, 'suspect')
      at.suspect = false
    end
  elseif not settled_before(record, lease) then
    refused[#refused + 1] = id
  end
end
to_front(at, at.front)
if #spent > 0 then
  redis.call('DEL', unpack(spent))
end
if #settled > 0 then
  redis.call('HDEL', held, unpack(settled))
  for outcome, count in pairs(counts) do
    tally(stats, outcome, count)
  end
end

local function ms_until_first(zset)
  local head = redis.call('ZRANGE', zset, 0, 0, 'WITHSCORES')
  return head[2] and math.max(0, tonumber(head[2]) - at.now) or -1
end

local next_due = ms_until_first(scheduled)
if next_due == 0 then
  promote(at, 500)
  next_due = ms_until_first(scheduled)
end

-- Nearly always none of them exists, and one question does for all.
local found = redis.call('EXISTS', paused, inbox, suspects, ranked, timers, shelves)
at.caught = found > 0 and redis.call('EXISTS', inbox) == 1 -- by a parked fetch
at.aside = found > (at.caught and 1 or 0)
if at.aside then
  fire_timers(at)
end
local is_paused = false
if at.aside and redis.call('EXISTS', paused, shelves) > 0 then
  read_shelves(at)
  is_paused = redis.call('EXISTS', paused) == 1
end
local leased, facts, envelopes, more = {}, {}, {}, false
if not is_paused and free > 0 then
  leased, facts, envelopes, more = claim(at, token, free)
end
-- Noted only now: had anything above been refused, the turn would be refused again, instead of being answered as if it had
-- been taken. What is settled by then stays settled.
redis.call('HSET', worker, 'turn', turn, 'refused', table.concat(refused, ' '))
if at.caught then
  empty_inbox(queued, inbox)
end
if at.aside then
  if redis.call('EXISTS', ranked) == 1 then
    wake(queued) -- for who has a free slot still
  end
  tidy_shelves(at)
end
if redis.call('EXISTS', timers) == 1 then
  local opens = ms_until_first(timers)
  next_due = next_due < 0 and opens or math.min(next_due, opens)
end

if is_paused then
  next_due = redis.call('PTTL', paused) -- nothing else can start before
end

local passed_by = at.passed_by and { at.passed_by.expired, at.passed_by.held_back }
return { refused, leased, facts, envelopes, at.now, next_due, is_paused and 'PAUSED' or more and 'MORE' or 'OK', passed_by }
