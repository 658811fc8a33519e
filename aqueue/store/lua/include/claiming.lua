-- claiming: hand waiting jobs to one worker
--
-- Needs counting, clock, queueing, limiting, finish, leasing, shelving. `at` carries the queue's keys, the worker, the limits and the time.

-- Entries without a job to run (tickets, cancelled and expired jobs) that one call may discard.
local DISCARD_LIMIT = 500

-- The same while tasks are paused: to set a job aside takes longer.
local SHELVE_LIMIT = 200

-- Of an instant in ms, until the year 5138; what is longer was not written by us.
local INSTANT_DIGITS = 14

-- A job that nothing has happened to: exactly these two fields, in this order. Most jobs are such.
local function is_fresh(fields)
  local ordered = #fields == 4 and fields[1] == 'state' and fields[3] == 'enqueued_ms'
  return ordered and fields[2] == 'queued' and #fields[4] <= INSTANT_DIGITS and string.find(fields[4], '^%d+$')
end

-- A job that is unique until it starts makes way for the next with its key.
local function give_key_away(at, id, record, digest)
  local unique = at.prefix .. 'unique:' .. digest
  if redis.pcall('GET', unique) == id then
    redis.call('DEL', unique)
  end
  redis.call('HDEL', record, 'unique')
end

-- Jobs without a lease that are told of all the same.
local function pass_by(at, kind, id)
  at.passed_by = at.passed_by or { expired = {}, held_back = {} }
  table.insert(at.passed_by[kind], id)
end

-- Answers what the lease is to say of the job, or nil where there is nothing to run.
local function begin(at, id, record, token)
  local fields = redis.call('HGETALL', record)
  local facts = fields[4]
  if at.paused_tasks or not is_fresh(fields) then
    local seen = by_name(fields)
    if seen.state ~= 'queued' then
      return nil
    end
    if seen.expires_ms and not seen.started_ms and number(seen.expires_ms) <= at.now then
      finish(locate(at, id), 'expired', at.now, at.result_ttl_ms, {})
      tally(at.stats, 'expired')
      pass_by(at, 'expired', id)
      return nil
    end
    if seen.shelf then
      leave_shelf(at, id, record, seen.shelf)
    end
    if at.paused_tasks and shelve(at, id, record, seen) then
      return nil
    end
    local crashes = number(seen.crashes)
    local is_suspect = crashes > 0 and crashes >= at.crash_limit - 1
    if is_suspect and at.suspect then
      redis.call('LPUSH', at.suspects, id)
      return nil
    end
    if seen.limits and not admit(at, id, record, seen, token .. id) then
      pass_by(at, 'held_back', id)
      return nil
    end
    if is_suspect then
      at.suspect = id
      redis.call('HSET', at.worker, 'suspect', id)
    end
    if seen.scope == 'started' and seen.unique then
      give_key_away(at, id, record, seen.unique)
    end
    facts = facts_of(seen, at.now)
  end
  redis.call('HSET', record, 'state', 'running', 'token', token, 'started_ms', at.now)
  return facts
end

local BEFORE_USUAL = string.format('(%.0f', USUAL_RANK)

-- The inbox first, since nobody else can reach it; a suspect only where none runs; then the queue, by priority,
-- and before it who comes back from a shelf.
local function next_ids(at, count)
  if not at.aside then
    return at.caught and redis.call('RPOP', at.inbox, count) or redis.call('RPOP', at.queued, count)
  end
  return redis.call('RPOP', at.inbox, count)
    or not at.suspect and redis.call('RPOP', at.suspects, 1)
    or pop_ranked(at, count, BEFORE_USUAL)
    or pop_shelved(at, count)
    or redis.call('RPOP', at.queued, count)
    or pop_ranked(at, count, '+inf')
end

-- A job whose record can be read and which cannot begin has a gate that cannot be read: it comes back when that may be mended.
local PUT_OFF_MS = 1000

local function put_off(at, id, record)
  if redis.call('HGET', record, 'state') == 'queued' then
    schedule(at.queued, at.scheduled, id, record, at.now + PUT_OFF_MS, {})
  end
end

-- Jobs that one call leases: Lua passes on some thousands of values at the most, and a script should be short.
local CLAIM_LIMIT = 500

-- Returns ids, facts and envelopes of the leases, and whether entries remain that this call had no budget to look at.
local function claim(at, token, wanted)
  local free = math.min(wanted, CLAIM_LIMIT)
  local records, payload_keys, count = at.prefix .. 'job:', at.prefix .. 'payload:', 0
  local leased, facts, held, payloads, examined, over = {}, {}, {}, {}, 0, false
  while count < free and not over do
    local readable, ids = pcall(next_ids, at, free - count)
    if not readable and count == 0 then
      error(ids, 0) -- nothing was taken
    end
    if not readable or not ids then -- what was taken is leased; the next turn tells of a key of the wrong type
      break
    end
    examined = examined + #ids
    over = examined >= free + (at.paused_tasks and SHELVE_LIMIT or DISCARD_LIMIT)
    for _, id in ipairs(ids) do
      local intact, fact = pcall(begin, at, id, records .. id, token)
      if not intact then -- one damaged record must not cost the jobs that were popped with it
        tally(at.stats, 'damaged')
        pcall(put_off, at, id, records .. id)
      elseif fact then
        count = count + 1
        leased[count], facts[count], payloads[count] = id, fact, payload_keys .. id
        held[2 * count - 1], held[2 * count] = id, token
      end
    end
  end
  if count > 0 then
    redis.call('HSET', at.held, unpack(held))
    payloads = redis.call('MGET', unpack(payloads))
  end
  return leased, facts, payloads, over or count == free and free < wanted
end
