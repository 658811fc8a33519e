-- acquire: let one holder past a limiter, or say when it may ask again
--
-- A Concurrency gives a permit with a lease. Who waits for one stands in line, is told, and asks again now and then, else it is
-- passed over. A Rate or a Window names the instant at which whoever asks may pass, behind all to whom it has named one; that
-- instant is kept for a holder that waits, and for a job that will come back. The same holder is let past once, however often it asks.
--
-- KEYS holders  zset  holder by when its permit ends
-- KEYS pace     str or zset  when a Rate or a Window let somebody through
-- KEYS passes   zset  who was let through by a Rate of late, by when
-- KEYS line     zset  who waits for a permit, or for the instant that it was named, by since when
-- KEYS patience zset  the same, by until when they are believed to do so
-- ARGV prefix   str   of the queue's keys, for channels and the pace
-- ARGV kind     str   c, g or w; see limiting
-- ARGV digest   str
-- ARGV first    int   the limit, or in a gate of kind g the interval in us
-- ARGV second   int   the burst of a gate of kind g, the span in ms of one of kind w
-- ARGV holder   str
-- ARGV job      str   queue and id of the job that asks, empty outside of one
-- ARGV wait_ms  int   for how long the holder would wait, -1 for ever
-- ARGV lease_ms int
-- ARGV patience_ms int  for so long a place in line is kept
-- RETURNS granted | waits | limited | ms until it may ask again
--- @include clock
--- @include pacing
--- @include granting
--- @include handing

-- So long a call may come a second time, because its answer was lost; and so many holders are remembered.
local STAND_MS = 10000
local REMEMBERED = 10000

local at = { prefix = prefix, now = now_ms(), holders = holders, line = line, patience = patience }
local gate = { kind = kind, digest = digest, first = first, second = second }

-- A key of the wrong type is refused here, before anything is written.
for _, zset in ipairs({ holders, passes, line, patience }) do
  redis.call('ZCARD', zset)
end

local function acquire_permit()
  hand_on(at, first, lease_ms, holder)
  local has_one = redis.call('ZSCORE', holders, holder)
  if has_one or redis.call('ZCARD', holders) < first and redis.call('EXISTS', line) == 0 then
    give_permit(at, holder, lease_ms)
    return { 'granted', lease_ms }
  end
  local place = 0
  if wait_ms ~= 0 then
    stand_in_line(at, holder, nil, at.now + patience_ms)
    place = math.min(redis.call('ZRANK', line, holder), first - 1)
  end
  -- Nobody gives back the permit of a dead process: the first in line looks when the first lease ends, and so on.
  local ends = number(redis.call('ZRANGE', holders, place, place, 'WITHSCORES')[2])
  return { wait_ms ~= 0 and 'waits' or 'limited', math.max(1, ends - at.now) }
end

-- From when on the gate is open to somebody behind so many others.
local function opens_behind(ahead)
  if kind == 'g' then
    return rested_at(at, gate) + first / 1000 * (ahead + 1 - second)
  end
  bring_back(at, pace)
  local rounds, place = math.floor(ahead / first), ahead % first
  local passed = redis.call('ZRANGE', pace, place - first, place - first, 'WITHSCORES')[2]
  return (passed and number(passed) + second or at.now) + rounds * second
end

local function note_pass()
  pass(at, gate, holder)
  if kind == 'g' then
    redis.call('ZADD', passes, at.now, holder)
    redis.call('ZREMRANGEBYSCORE', passes, '-inf', at.now - STAND_MS)
    redis.call('ZREMRANGEBYRANK', passes, 0, -REMEMBERED - 1)
    redis.call('PEXPIRE', passes, STAND_MS)
  end
end

local function has_passed()
  return redis.call('ZSCORE', kind == 'g' and passes or pace, holder)
end

local function pass_gate()
  if has_passed() then
    return { 'granted', 0 }
  end
  for _, silent in ipairs(redis.call('ZRANGE', patience, '-inf', at.now, 'BYSCORE', 'LIMIT', 0, SILENT_LIMIT)) do
    leave_line_of(at, silent)
  end
  local who = redis.call('ZSCORE', line, holder) and holder or job
  local since = redis.call('ZSCORE', line, who)
  local opens = math.ceil(opens_behind(since and redis.call('ZRANK', line, who) or redis.call('ZCARD', line)))
  local left_ms = math.max(0, opens - at.now)
  local waits = left_ms > 0 and (wait_ms < 0 or left_ms <= wait_ms)
  if since and not (waits and who == holder) then
    leave_line_of(at, who)
  end
  if left_ms == 0 then
    note_pass()
    return { 'granted', 0 }
  end
  if waits or job ~= '' then
    stand_in_line(at, waits and holder or job, since, opens + patience_ms)
  end
  return { waits and 'waits' or 'limited', left_ms }
end

if kind == 'c' then
  return acquire_permit()
end
return pass_gate()
