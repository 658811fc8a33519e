-- extend: renew one worker's lease and reconcile what it runs with what it holds
--
-- FLAGS allow-oom
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
-- KEYS changed    str   which change of a schedule was the last
-- KEYS stats      hash  counters
-- ARGV prefix     str   of the queue's keys, for the records of the held jobs
-- ARGV me         str   worker id
-- ARGV turn       int   the last turn whose answer the worker has taken in
-- ARGV lease_ms   int
-- ARGV info       str   what the worker says of itself
-- ARGV result_ttl_ms   int  for jobs that were to be cancelled
-- ITEM id         str   a job that it runs
-- RETURNS ids run but not held | ids to cancel | ids handed back | ms until another lease ends, -1 none | ms until a turn would find a job, -1 unknown
--         | how many lie in the inbox | the last change of a schedule, if there was one lately
--- @include clock
--- @include counting
--- @include queueing
--- @include requeueing
--- @include pacing
--- @include limiting
--- @include notifying
--- @include finish
--- @include give_back

-- A key of the wrong type is refused here, before anything is written.
redis.call('LLEN', queued)
redis.call('ZCARD', ranked)
redis.call('HLEN', held)

local now = now_ms()
local at = { prefix = prefix, queued = queued, ranked = ranked, held_back = held_back, now = now }
redis.call('ZADD', workers, now + lease_ms, me)
redis.call('HSET', worker, 'info', info)

local running, lost, cancelled, returned = {}, {}, {}, {}
for id in items() do
  running[id] = true
  if redis.call('HEXISTS', held, id) == 0 then
    lost[#lost + 1] = id
  elseif type(redis.pcall('HGET', prefix .. 'job:' .. id, 'cancel')) == 'string' then
    cancelled[#cancelled + 1] = id
  end
end

-- Held since a turn that is known to have been answered, and yet not run: the answer never arrived.
local entries = redis.call('HGETALL', held)
for i = 1, #entries, 2 do
  local id, claimed_in = entries[i], number(string.match(entries[i + 1], '/(%d+)$'))
  if claimed_in <= turn and not running[id] then
    redis.call('HDEL', held, id)
    if give_back(locate(at, id), stats, now, result_ttl_ms) then
      returned[#returned + 1] = id
    end
  end
end

to_front(at, returned)

local function first_after(zset, skip)
  for _, pair in ipairs({ { 0, 1 }, { 1, 2 } }) do
    local entry = redis.call('ZRANGE', zset, pair[1], pair[1], 'WITHSCORES')
    if entry[1] and entry[1] ~= skip then
      return math.max(0, tonumber(entry[2]) - now)
    end
  end
  return -1
end

-- A suspect that a busy worker has put aside wakes nobody; whoever runs none may take it at once.
local takes_suspect = redis.call('LLEN', suspects) > 0 and redis.call('HEXISTS', worker, 'suspect') == 0
local due, opens = first_after(scheduled, ''), first_after(timers, '')
local next_due = takes_suspect and 0 or (due < 0 or opens < 0) and math.max(due, opens) or math.min(due, opens)
local change = redis.pcall('GET', changed) -- none if it cannot be read
return {
  lost, cancelled, returned, first_after(workers, me), next_due, redis.call('LLEN', inbox),
  type(change) == 'string' and change or '',
}
