-- list: ids of jobs in one state, those that leave it next first; failed ones latest first
--
-- FLAGS no-writes
-- KEYS queued     list  ids in order
-- KEYS suspects   list  ids one crash away from the limit
-- KEYS ranked     zset  jobs of other priorities than the usual, by rank and instant
-- KEYS held_back  zset  all jobs that wait before a closed gate
-- KEYS shelves    hash  paused tasks, and those whose shelves are to be emptied
-- KEYS scheduled  zset  id by due time
-- KEYS failed     zset  failed jobs
-- KEYS workers    zset  worker by lease deadline
-- ARGV prefix     str   of the queue's keys, for what the workers hold, and the shelves
-- ARGV state      str   queued | scheduled | running | failed
-- ARGV offset     int
-- ARGV limit      int
-- RETURNS list of ids
--- @include clock
--- @include queueing

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

-- One place after the other: each gives what is left of the page, once the places before it are passed.
local passed = 0
local function page_of(length, read)
  local from, wanted = math.max(0, offset - passed), limit - #ids
  if wanted > 0 and from < length then
    append(read(from, math.min(length, from + wanted) - 1))
  end
  passed = passed + length
end

local before = redis.call('ZCOUNT', ranked, '-inf', string.format('(%.0f', USUAL_RANK))
page_of(before, function(first, final)
  return redis.call('ZRANGE', ranked, first, final)
end)
page_of(redis.call('LLEN', queued), function(first, final)
  local oldest_last, reversed = redis.call('LRANGE', queued, -final - 1, -first - 1), {}
  for i = #oldest_last, 1, -1 do
    reversed[#reversed + 1] = oldest_last[i]
  end
  return reversed
end)
page_of(redis.call('ZCARD', ranked) - before, function(first, final)
  return redis.call('ZRANGE', ranked, before + first, before + final)
end)
page_of(redis.call('LLEN', suspects), function(first, final)
  return redis.call('LRANGE', suspects, first, final)
end)
page_of(redis.call('ZCARD', held_back), function(first, final)
  return redis.call('ZRANGE', held_back, first, final)
end)
local tasks = redis.call('HKEYS', shelves)
table.sort(tasks)
for _, task in ipairs(tasks) do
  local length = redis.pcall('ZCARD', prefix .. 'shelf:' .. task) -- no number if it cannot be read
  page_of(type(length) == 'number' and length or 0, function(first, final)
    return redis.call('ZRANGE', prefix .. 'shelf:' .. task, first, final)
  end)
end
return ids
