-- list: ids of jobs in one state, those that leave it next first; failed ones latest first
--
-- FLAGS no-writes
-- KEYS queued     list  ids in order
-- KEYS suspects   list  ids one crash away from the limit
-- KEYS scheduled  zset  id by due time
-- KEYS failed     zset  failed jobs
-- KEYS workers    zset  worker by lease deadline
-- ARGV prefix     str   of the queue's keys, for what the workers hold
-- ARGV state      str   queued | scheduled | running | failed
-- ARGV offset     int
-- ARGV limit      int
-- RETURNS list of ids

local last = offset + limit - 1
if state == 'scheduled' then
  return redis.call('ZRANGE', scheduled, offset, last)
elseif state == 'failed' then
  return redis.call('ZRANGE', failed, offset, last, 'REV')
end

local ids = {}
local function append(more)
  for _, id in ipairs(more) do
    ids[#ids + 1] = id
  end
end
if state == 'running' then
  for _, name in ipairs(redis.call('ZRANGE', workers, 0, -1)) do
    append(redis.call('HKEYS', prefix .. 'held:' .. name))
  end
  local page = {}
  for i = offset + 1, math.min(#ids, last + 1) do
    page[#page + 1] = ids[i]
  end
  return page
end
local waiting = redis.call('LRANGE', queued, -last - 1, -offset - 1)
for i = #waiting, 1, -1 do
  ids[#ids + 1] = waiting[i]
end
-- The suspects' pages follow those of the queue.
local before = redis.call('LLEN', queued)
if #ids < limit then
  local from = math.max(0, offset - before)
  append(redis.call('LRANGE', suspects, from, from + limit - #ids - 1))
end
return ids
