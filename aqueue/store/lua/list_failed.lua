-- list_failed: look from a place on at failed jobs, at no more of each than people choose them by
--
-- A place is score and id of an entry, whether or not the entry is still there: who goes on from it misses nothing and meets
-- nothing twice, whatever has failed or left meanwhile.
--
-- FLAGS no-writes
-- KEYS failed     zset  failed jobs by the instant at which their records go
-- ARGV prefix     str   of the queue's keys, for the records of the jobs
-- ARGV goes       str   score of the place; empty to begin
-- ARGV after      str   its id
-- ARGV order      str   latest | oldest
-- ARGV look       int   entries to look at
-- ARGV head       int   bytes of each envelope to be shown, which begins with its task
-- RETURNS now | how many are listed | list of id, score, when it failed or '' if it is no failed job, the error in short,
--         start of the envelope
--- @include clock
--- @include noting

-- An error that the history does not tell was written by a script and is shorter.
local ERROR_BYTES = 1024

-- By their bytes, as the server does; Lua compares strings by the server's locale.
local function is_before(one, other)
  for i = 1, math.min(#one, #other) do
    local left, right = string.byte(one, i), string.byte(other, i)
    if left ~= right then
      return left < right
    end
  end
  return #one < #other
end

-- Entries before the place. Those of the same score are searched by halves.
local function rank_of(score, id)
  local low, high = redis.call('ZCOUNT', failed, '-inf', '(' .. score), redis.call('ZCOUNT', failed, '-inf', score)
  while low < high do
    local middle = math.floor((low + high) / 2)
    if is_before(redis.call('ZRANGE', failed, middle, middle)[1], id) then
      low = middle + 1
    else
      high = middle
    end
  end
  return low
end

local listed = redis.call('ZCARD', failed)

local function page()
  if order == 'latest' then
    local first = goes == '' and 0 or listed - rank_of(goes, after)
    return redis.call('ZRANGE', failed, first, first + look - 1, 'REV', 'WITHSCORES')
  end
  local first = goes == '' and 0 or rank_of(goes, after)
  local entry = redis.call('ZRANGE', failed, first, first, 'WITHSCORES')
  if entry[1] == after and entry[2] == goes then
    first = first + 1
  end
  return redis.call('ZRANGE', failed, first, first + look - 1, 'WITHSCORES')
end

local function told_of(record, history)
  local outcome, bytes, from = string.match(history or '', RUN)
  if outcome == 'failed' then
    return string.sub(history, from, from + number(bytes) - 1)
  end
  return string.sub(redis.call('HGET', record, 'error') or '', 1, ERROR_BYTES)
end

local function facts(id)
  local record = prefix .. 'job:' .. id
  local seen = redis.pcall('HMGET', record, 'state', 'ended_ms', 'history') -- without any if it cannot be read
  if seen[1] ~= 'failed' then
    return '', '', ''
  end
  local start = head > 0 and redis.pcall('GETRANGE', prefix .. 'payload:' .. id, 0, head - 1)
  return seen[2] or '0', told_of(record, seen[3]), type(start) == 'string' and start or ''
end

local entries, answers = page(), {}
for i = 1, #entries, 2 do
  local ended, told, start = facts(entries[i])
  answers[#answers + 1] = { entries[i], entries[i + 1], ended, told, start }
end
return { now_ms(), listed, answers }
