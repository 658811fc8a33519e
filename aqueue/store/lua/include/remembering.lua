-- remembering: what is known of a schedule, while it lives and for a while after
--
-- Needs clock. Schedules of the code live until their code goes, those that users make until they are deleted or have ended;
-- what is left then is a note.

-- A user's schedule that has ended is remembered for so long, and a release that is rolled out over a longer time than this
-- brings the schedules back that it no longer has.
local NOTE_MS = 86400000

-- For as long a change may be told by heartbeats; then workers have looked by themselves.
local TOLD_MS = 120000

local KNOWN = {
  'owner', 'definition', 'declared_ms', 'slot_ms', 'job', 'removed_ms', 'ended_ms', 'worker', 'started', 'paused', 'begins',
  'made', 'before', 'steered', 'timing', 'task',
}

local function known_of(entry)
  local seen, values = {}, redis.call('HMGET', entry, unpack(KNOWN))
  for i, name in ipairs(KNOWN) do
    seen[name] = values[i] or nil
  end
  seen.owner = seen.owner or seen.definition and 'code' -- of the first release, which knew no other
  return seen
end

local function is_live(seen, owner)
  return seen.owner == owner and seen.definition and not seen.removed_ms and not seen.ended_ms
end

local function leave_note(index, entry, id, field, now)
  redis.call('HSET', entry, field, now)
  redis.call('PEXPIRE', entry, NOTE_MS)
  redis.call('ZREM', index, id)
end

-- At once where workers listen; who does not hears of it at the next heartbeat.
local function announce(changed, prefix, what)
  redis.call('SET', changed, what, 'PX', TOLD_MS)
  redis.call('SPUBLISH', prefix .. 'channel:schedules', what)
end
