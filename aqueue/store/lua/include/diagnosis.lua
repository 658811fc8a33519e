-- diagnosis: what is wrong with one job, as one word, or nil where all is as it should be
--
-- Needs clock. `at` carries the queue's keys, the time, and `look`: a list may be as long as the backlog, so a queued job is
-- looked for among so many entries at either end of the lists and inboxes; with 0 it is not, and counts as found nowhere.
-- All transitions are scripts, so no fault is ever seen for a moment only, except where a list is longer than the look.

-- Scripts and expiry read the clock at slightly different times.
local SLACK_MS = 1000

local function found_in(list, id, look)
  return redis.call('LPOS', list, id, 'MAXLEN', look) or redis.call('LPOS', list, id, 'RANK', -1, 'MAXLEN', look)
end

-- Who is held back waits in the line of a gate, where alone the gate looks.
local function is_in_line(at, id, record)
  for digest in string.gmatch(redis.call('HGET', record, 'limits') or '', '%a%.(%x+)%.') do
    if type(redis.pcall('ZSCORE', at.prefix .. 'waiting:' .. digest, id)) == 'string' then
      return true
    end
  end
  return false
end

-- A shelf counts as long as claims or a resume would look there.
local function is_shelved(at, id, record)
  local task = redis.call('HGET', record, 'shelf')
  local known = task and redis.call('HEXISTS', at.shelves, task) == 1
  return known and type(redis.pcall('ZSCORE', at.prefix .. 'shelf:' .. task, id)) == 'string'
end

local function is_waiting(at, id, record)
  if is_shelved(at, id, record) then
    return true
  end
  if at.look == 0 then
    return false
  end
  if redis.call('ZSCORE', at.ranked, id) or redis.call('ZSCORE', at.held_back, id) and is_in_line(at, id, record) then
    return true
  end
  if found_in(at.queued, id, at.look) or found_in(at.suspects, id, at.look) then
    return true
  end
  for _, name in ipairs(redis.call('ZRANGE', at.workers, 0, -1)) do
    if found_in(at.prefix .. 'inbox:' .. name, id, at.look) then
      return true
    end
  end
  return false
end

-- Whoever holds a job whose record has gone writes a new one when it settles.
local function is_held(at, id)
  for _, name in ipairs(redis.call('ZRANGE', at.workers, 0, -1)) do
    if redis.call('HEXISTS', at.prefix .. 'held:' .. name, id) == 1 then
      return true
    end
  end
  return false
end

local function holder_of(token)
  return token and string.match(token, '^(.*)/%d+$')
end

local function without_record(at, id, payload)
  if is_held(at, id) then
    return nil
  end
  if redis.call('PTTL', payload) == -1 then
    return 'record_lost'
  end
  if redis.call('ZSCORE', at.scheduled, id) then
    return 'due_without_job'
  end
  local goes_ms = redis.call('ZSCORE', at.failed, id)
  return goes_ms and tonumber(goes_ms) > at.now + SLACK_MS and 'failed_without_job' or nil
end

local function misplaced(at, id, state, token, record)
  if state == 'queued' then
    return not is_waiting(at, id, record) and 'queued_nowhere' or nil
  elseif state == 'scheduled' then
    return not redis.call('ZSCORE', at.scheduled, id) and 'scheduled_nowhere' or nil
  elseif state == 'running' then
    local holder = holder_of(token)
    local held = holder and redis.call('HEXISTS', at.prefix .. 'held:' .. holder, id) == 1
    return not held and 'running_nowhere' or nil
  elseif state == 'failed' then -- what is kept for a moment only bears no error and is not listed
    local kept = redis.call('HEXISTS', record, 'error') == 1
    return kept and not redis.call('ZSCORE', at.failed, id) and 'failed_unlisted' or nil
  end
end

local function has_arguments(payload)
  local size = redis.pcall('STRLEN', payload)
  return type(size) == 'number' and size > 0
end

-- Answers the fault, and what changes when the job moves on.
local function diagnose(at, id, record, payload)
  local seen = redis.pcall('HMGET', record, 'state', 'token', 'started_ms', 'due_ms')
  if seen.err then
    return 'unreadable', ''
  end
  local state = seen[1]
  if not state then
    return redis.call('EXISTS', record) == 1 and 'unreadable' or without_record(at, id, payload), ''
  end
  local since = (seen[3] or '') .. ' ' .. (seen[4] or '')
  if state ~= 'scheduled' and redis.call('ZSCORE', at.scheduled, id) then
    return 'due_without_job', since
  end
  if state ~= 'failed' and redis.call('ZSCORE', at.failed, id) then
    return 'failed_without_job', since
  end
  if (state == 'queued' or state == 'scheduled') and not has_arguments(payload) then
    return 'arguments_lost', since
  end
  return misplaced(at, id, state, seen[2], record), since
end
