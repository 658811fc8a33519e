-- handing: those who stand in line before a limiter, and how a permit comes to the first of them
--
-- Needs clock, granting. `at` carries the prefix of the queue's keys, the limiter's keys and the time. A holder's id begins with the name of its
-- process's channel. Who gives a permit back hands it to the next in line, so that nobody who comes along can be quicker.

-- Of those in line, so many may have fallen silent and be passed over in one call.
local SILENT_LIMIT = 500

-- Several may come within one millisecond.
local STEP_MS = 1 / 1024

-- Who stands there already keeps its place; else it has the place that somebody else leaves to it, or the last.
local function stand_in_line(at, holder, left_by_other, until_ms)
  local last = number(redis.call('ZRANGE', at.line, -1, -1, 'WITHSCORES')[2])
  redis.call('ZADD', at.line, 'NX', left_by_other or math.max(at.now, last + STEP_MS), holder)
  redis.call('ZADD', at.patience, until_ms, holder)
  expire_with_last(at.patience, { at.line, at.patience })
end

local function leave_line_of(at, holder)
  redis.call('ZREM', at.line, holder)
  redis.call('ZREM', at.patience, holder)
end

-- Answers whether anybody has heard it. A process that lives and has lost its connection asks when it is back.
local function tell_permitted(at, holder)
  local channel = string.match(holder, '^(%x+)/%d+$')
  return channel and redis.call('SPUBLISH', at.prefix .. 'channel:' .. channel, 'permitted ' .. holder) > 0
end

-- A permit that was handed on lasts until its holder has asked for it, which takes a moment unless it is hung.
local CONFIRM_MS = 2000

-- Gives free permits to those in line, oldest first; `asker` need not be told. Who does not hear it is passed over.
local function hand_on(at, limit, lease_ms, asker)
  redis.call('ZREMRANGEBYSCORE', at.holders, '-inf', at.now)
  local silent = 0
  while redis.call('ZCARD', at.holders) < limit and silent < SILENT_LIMIT do
    local holder = redis.call('ZRANGE', at.line, 0, 0)[1]
    if not holder then
      break
    end
    local patient_until = number(redis.call('ZSCORE', at.patience, holder))
    leave_line_of(at, holder)
    if holder == asker or patient_until > at.now and tell_permitted(at, holder) then
      give_permit(at, holder, math.min(lease_ms, CONFIRM_MS))
    else
      silent = silent + 1
    end
  end
end
