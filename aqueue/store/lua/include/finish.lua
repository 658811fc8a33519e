-- finish: write a job's end, tell its waiters, free its unique key and start its lifetime
--
-- Needs limiting, notifying. Outcomes, reclaim, cancel and claim (expiry) end jobs, and only through here.

-- A job whose result is not kept leaves its bare state behind for this long, so that an enqueue that was sent
-- twice cannot run it again, and a waiter still learns how it ended.
local STUB_MS = 10000

-- More than a century is no lifetime that anybody has asked for.
local LONGEST_MS = 1e13

local function keep(key, ttl_ms)
  if ttl_ms < 0 then
    redis.call('PERSIST', key)
  else
    redis.call('PEXPIRE', key, ttl_ms)
  end
end

-- The key of a job that is unique for a span of time stays for that long, unless the job was given up, and its record with it.
local function free_key(job, state, digest, scope)
  local unique = job.at.prefix .. 'unique:' .. digest
  if redis.pcall('GET', unique) ~= job.id then -- whatever else lies there is somebody else's
    return
  end
  local left_ms = scope == 'window' and state ~= 'cancelled' and state ~= 'expired' and redis.call('PTTL', unique)
  if not left_ms then
    redis.call('DEL', unique)
  elseif redis.call('PTTL', job.record) ~= -1 then
    redis.call('PEXPIRE', job.record, left_ms, 'GT')
  end
end

local function leave_shelf(at, id, record, task)
  redis.pcall('ZREM', at.prefix .. 'shelf:' .. task, id)
  redis.call('HDEL', record, 'shelf')
end

-- job: {at, id, record, payload}; fields: flat list to store with the end; ttl_ms: -1 for ever, 0 not at all; noted: called if runs
-- before were noted, so that this one is, too
local function finish(job, state, now, ttl_ms, fields, noted)
  local seen = redis.call('HMGET', job.record, 'unique', 'waiters', state == 'failed' and 'failure_ttl_ms' or 'result_ttl_ms',
    'limits', 'scope', 'history', 'shelf')
  local own_ms = tonumber(seen[3] or nil)
  if own_ms == math.floor(own_ms or 0) and own_ms >= -1 and own_ms <= LONGEST_MS then -- else the record is damaged
    ttl_ms = own_ms
  end
  if ttl_ms == 0 then
    redis.call('DEL', job.payload)
    redis.call('HDEL', job.record, 'error', 'result', 'history')
    redis.call('HSET', job.record, 'state', state, 'ended_ms', now)
    redis.call('PEXPIRE', job.record, STUB_MS)
  else
    redis.call('HSET', job.record, 'state', state, 'ended_ms', now, unpack(fields))
    keep(job.record, ttl_ms)
    if state == 'completed' then
      redis.call('DEL', job.payload)
    else
      keep(job.payload, ttl_ms)
    end
    if seen[6] and noted then
      noted()
    end
  end
  if seen[1] then
    free_key(job, state, seen[1], seen[5])
  end
  if seen[4] then
    pcall(free_limits, job.at, job.id, seen[4]) -- a gate that cannot be read must not leave the end half told
  end
  if seen[7] then
    leave_shelf(job.at, job.id, job.record, seen[7])
  end
  if seen[2] then
    local result = ttl_ms ~= 0 and fields[1] == 'result' and fields[2] or nil
    tell_waiters(job.at.prefix, job.id, job.record, seen[2], state, result)
  end
  return ttl_ms
end

-- at: the queue's keys
local function locate(at, id)
  return { at = at, id = id, record = at.prefix .. 'job:' .. id, payload = at.prefix .. 'payload:' .. id }
end
