-- claiming: hand waiting jobs to one worker
--
-- Needs finish, queueing. `at` carries the queue's keys, the worker, the limits and the time.

-- Entries without a job to run (tickets, cancelled and expired jobs) that one call may discard.
local DISCARD_LIMIT = 500

local RECORD_FIELDS = { 'state', 'attempt', 'crashes', 'enqueued_ms', 'due_ms', 'expires_ms', 'unknown_ms', 'started_ms' }

local function lease_of(at, id, record, token)
  local seen = redis.call('HMGET', record, unpack(RECORD_FIELDS))
  if seen[1] ~= 'queued' then
    return nil
  end
  if seen[6] and not seen[8] and number(seen[6]) <= at.now then
    finish(locate(at.prefix, id), 'expired', at.now, at.result_ttl_ms, {})
    redis.call('HINCRBY', at.stats, 'expired', 1)
    return nil
  end
  local crashes = number(seen[3])
  if crashes > 0 and crashes >= at.crash_limit - 1 then
    if at.suspect then
      redis.call('LPUSH', at.suspects, id)
      return nil
    end
    at.suspect = id
    redis.call('HSET', at.worker, 'suspect', id)
  end
  redis.call('HSET', record, 'state', 'running', 'token', token, 'started_ms', at.now)
  local unknown_for = seen[7] and at.now - number(seen[7]) or -1
  local waited = math.max(0, at.now - number(seen[5] or seen[4]))
  return { id, token, number(seen[2]), crashes, waited, number(seen[4]), unknown_for }
end

-- The inbox first, since nobody else can reach it; a suspect only where none runs; then the queue.
local function next_ids(at, count)
  local ids = redis.call('RPOP', at.inbox, count)
  if ids then
    return ids
  end
  if not at.suspect then
    ids = redis.call('RPOP', at.suspects, 1)
    if ids then
      return ids
    end
  end
  return redis.call('RPOP', at.queued, count)
end

-- Jobs that one call leases: Lua passes on some thousands of values at the most, and a script should be short.
local CLAIM_LIMIT = 500

-- Returns the leases, and whether entries remain that this call had no budget to look at.
local function claim(at, token, wanted)
  local free = math.min(wanted, CLAIM_LIMIT)
  local leases, held, payloads, examined = {}, {}, {}, 0
  while #leases < free do
    if examined >= free + DISCARD_LIMIT then
      return leases, true
    end
    local ids = next_ids(at, free - #leases)
    if not ids then
      break
    end
    examined = examined + #ids
    for _, id in ipairs(ids) do
      local intact, lease = pcall(lease_of, at, id, at.prefix .. 'job:' .. id, token)
      if not intact then -- one damaged record must not cost the jobs that were popped with it
        redis.call('HINCRBY', at.stats, 'damaged', 1)
      elseif lease then
        leases[#leases + 1] = lease
        held[#held + 1] = id
        held[#held + 1] = token
        payloads[#payloads + 1] = at.prefix .. 'payload:' .. id
      end
    end
  end
  if #leases > 0 then
    redis.call('HSET', at.held, unpack(held))
    for i, envelope in ipairs(redis.call('MGET', unpack(payloads))) do
      leases[i][8] = envelope or ''
    end
  end
  return leases, #leases == free and free < wanted
end
