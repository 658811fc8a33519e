-- settle_and_claim: store how runs have ended, then lease waiting jobs into the free slots
--
-- One worker's turn at one queue. Turns are numbered; a turn that is sent again, because its answer was lost,
-- is answered again and does nothing.
--
-- FLAGS allow-oom  a full server must be able to drain
-- KEYS queued     list  ids in order
-- KEYS suspects   list  ids one crash away from the limit
-- KEYS scheduled  zset  id by due time
-- KEYS inbox      list  what this worker's BLMOVE has caught
-- KEYS held       hash  id to token of this worker's jobs
-- KEYS worker     hash  this worker
-- KEYS workers    zset  worker by lease deadline
-- KEYS failed     zset  failed jobs
-- KEYS paused     str   present while paused
-- KEYS stats      hash  counters
-- EACH record     hash  the settled job
-- EACH payload    str   its envelope
-- ARGV prefix     str   of the queue's keys, for the records of jobs that are claimed here
-- ARGV me         str   worker id
-- ARGV turn       int   number of this turn
-- ARGV free       int   slots to fill
-- ARGV lease_ms   int
-- ARGV crash_limit     int
-- ARGV result_ttl_ms   int  for jobs that expire here
-- ARGV failed_cap      int
-- ITEM id         str
-- ITEM token      str   handed out by the claim
-- ITEM outcome    str   completed | retried | failed | cancelled | released
-- ITEM body       str   result, error, or why it is released
-- ITEM delay_ms   str
-- ITEM ttl_ms     str  0 keeps nothing, -1 is for ever
-- ITEM task       str
-- RETURNS ids refused with a lost lease | ids leased | their facts (leasing) | their envelopes | now
--         | ms until the next job is due, -1 none | OK PAUSED MORE
--- @include clock
--- @include finish
--- @include bury
--- @include queueing
--- @include outcomes
--- @include settling
--- @include leasing
--- @include claiming
--- @include answering

local token = me .. '/' .. turn
local mine = redis.call('HMGET', worker, 'turn', 'suspect', 'refused')
local at = {
  prefix = prefix, queued = queued, suspects = suspects, scheduled = scheduled, inbox = inbox, held = held,
  worker = worker, failed = failed, stats = stats, now = now_ms(), suspect = mine[2], crash_limit = crash_limit,
  result_ttl_ms = result_ttl_ms, failed_cap = failed_cap, front = {},
}

if mine[1] and tonumber(mine[1]) >= turn then
  return answer_again(at, token, mine[3])
end
if at.suspect and redis.call('HEXISTS', held, at.suspect) == 0 then
  at.suspect = false -- it was handed back by extend
end

-- What this worker holds of the items, asked for at once.
local function held_tokens()
  local ids = {}
  for id in items() do
    ids[#ids + 1] = id
  end
  return #ids > 0 and redis.call('HMGET', held, unpack(ids)) or {}
end

local refused, settled, spent, counts = {}, {}, {}, {}
local tokens, item = held_tokens(), 0
for id, lease, outcome, body, delay_ms, ttl_ms, task, record, payload in items() do
  item = item + 1
  if tokens[item] == lease then
    local became = outcome
    if outcome == 'completed' and complete_plain(at, record, body, ttl_ms, task) then
      spent[#spent + 1] = payload
    else
      local job = { prefix = prefix, id = id, record = record, payload = payload }
      became = settle(at, job, outcome, { body = body, delay_ms = number(delay_ms), ttl_ms = number(ttl_ms), task = task })
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
to_front(queued, at.front)
if #spent > 0 then
  redis.call('DEL', unpack(spent))
end
if #settled > 0 then
  redis.call('HDEL', held, unpack(settled))
  for outcome, count in pairs(counts) do
    redis.call('HINCRBY', stats, outcome, count)
  end
end

redis.call('HSET', worker, 'turn', turn, 'refused', table.concat(refused, ' '))
redis.call('ZADD', workers, at.now + lease_ms, me)

promote(prefix, queued, scheduled, at.now, 500)
local is_paused = redis.call('EXISTS', paused) == 1
local leased, facts, envelopes, more = {}, {}, {}, false
if not is_paused and free > 0 then
  leased, facts, envelopes, more = claim(at, token, free)
end
empty_inbox(queued, inbox)

local head = redis.call('ZRANGE', scheduled, 0, 0, 'WITHSCORES')
local next_due = head[2] and math.max(0, tonumber(head[2]) - at.now) or -1
return { refused, leased, facts, envelopes, at.now, next_due, is_paused and 'PAUSED' or more and 'MORE' or 'OK' }
