-- enqueue: store new jobs as queued, or as scheduled when they are due later
--
-- All items in one step. Sent twice, the second finds the records and answers the same ids.
--
-- KEYS queued     list  ids in order
-- KEYS ranked     zset  jobs of other priorities than the usual, by rank and instant
-- KEYS scheduled  zset  id by due time
-- EACH record     hash  the job; a new one does not exist
-- ARGV prefix     str   of the queue's keys, for envelopes and the records of holders
-- ITEM id         str
-- ITEM envelope   str
-- ITEM wishes     str   empty for a job that is to run at once and wants nothing of its own; else words name=value:
--                       delay_ms from now | at_ms in Unix time; ttl_ms to start within once it is due; rank and front, see
--                       queueing; result_ttl_ms, failure_ttl_ms; limits, see limiting; unique, the digest of its key;
--                       scope started | window of the key, else until it ends; window_ms; replace, if what it asks for
--                       is to take the place of what a waiting holder asked for, with max_wait_ms since the first
-- RETURNS list of the id that now stands for each item: its own, or that of the job that holds its key
--- @include clock
--- @include queueing
--- @include uniqueness
--- @include storing

local now, payloads, answers = now_ms(), prefix .. 'payload:', {}
local at = { prefix = prefix, queued = queued, ranked = ranked, scheduled = scheduled, now = now, ready = {}, front = {} }
local ready = at.ready

-- What the new call asks for takes the place of what the holder was to do; who waits for the holder waits for that.
-- Its own id is remembered for as long as the same call may come again.
local function replace(holder, id, record, envelope, wish)
  local other = prefix .. 'job:' .. holder
  local seen = redis.call('HMGET', other, 'state', 'enqueued_ms')
  redis.call('SET', payloads .. holder, envelope)
  if wish.max_wait_ms then
    wish.due = math.min(wish.due, number(seen[2]) + number(wish.max_wait_ms))
  end
  if seen[1] == 'scheduled' then
    if wish.due > now then
      schedule(queued, scheduled, holder, other, wish.due, {})
    else
      redis.call('ZREM', scheduled, holder)
      redis.call('HSET', other, 'state', 'queued', 'due_ms', now)
      line_up(at, holder, wish)
    end
  end
  for _, name in ipairs({ 'result_ttl_ms', 'failure_ttl_ms' }) do
    if wish[name] then
      redis.call('HSET', other, name, wish[name])
    end
  end
  if wish.ttl_ms then
    redis.call('HSET', other, 'expires_ms', math.max(wish.due, now) + number(wish.ttl_ms))
  else
    redis.call('HDEL', other, 'expires_ms')
  end
  redis.call('HSET', record, 'state', 'cancelled', 'stands', holder)
  redis.call('PEXPIRE', record, STAND_MS)
end

-- Answers the id that stands for a job that wants something of its own.
local function settle_on(id, record, envelope, wish)
  local holder, waits = nil, false
  if wish.unique then
    holder, waits = holder_of_key(prefix, wish.unique)
  end
  if not holder then
    store(at, id, record, wish)
    return id
  end
  if wish.replace and waits then
    replace(holder, id, record, envelope, wish)
  end
  return holder
end

-- The answer to a call that comes again: its own job, or the one that it has changed.
local function answered_before(id, record)
  local stands = redis.pcall('HGET', record, 'stands')
  return type(stands) == 'string' and stands or id
end

-- A key of the wrong type is refused here, before anything is written.
redis.call('LLEN', queued)
redis.call('ZCARD', ranked)
redis.call('ZCARD', scheduled)

for id, envelope, words, record in items() do
  local stands = id
  if redis.call('EXISTS', record) == 1 then
    stands = answered_before(id, record)
  else
    if words == '' then
      redis.call('HSET', record, 'state', 'queued', 'enqueued_ms', now)
      ready[#ready + 1] = id
    else
      stands = settle_on(id, record, envelope, wishes_of(at, words))
    end
    if stands == id then
      redis.call('SET', payloads .. id, envelope)
    end
  end
  answers[#answers + 1] = stands
end
queue_together(at)
return answers
