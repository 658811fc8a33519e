-- uniqueness: which job holds a user's key, if any
--
-- A key is held until its job ends, or starts, or for a span of time. A holder that no longer exists or cannot be read, holds
-- nothing. Nothing here raises, whatever other programs have put in the place of a key.

-- A call that has changed another job is known for this long, should it come again.
local STAND_MS = 10000

local UNFINISHED = { scheduled = true, queued = true, running = true }

-- Answers the holder, and whether it still waits for its start.
local function holder_of_key(prefix, digest)
  local id = redis.pcall('GET', prefix .. 'unique:' .. digest)
  local seen = type(id) == 'string' and redis.pcall('HMGET', prefix .. 'job:' .. id, 'state', 'scope')
  local state, scope = seen and not seen.err and seen[1], seen and seen[2]
  if not state or not (UNFINISHED[state] or scope == 'window') then
    return nil, false
  end
  return id, state == 'scheduled' or state == 'queued'
end

local function take_key(key, id, window_ms)
  if window_ms then
    redis.call('SET', key, id, 'PX', window_ms)
  else
    redis.call('SET', key, id)
  end
end
