-- await: read how jobs have ended, and ask to be told about those that have not
--
-- The caller listens on its channel before it asks, so that no end can fall between the two.
--
-- FLAGS allow-oom
-- EACH record     hash  the job
-- ARGV channel    str   of the caller
-- ITEM id         str
-- RETURNS list of state, result, error, ms until its ttl ends a job that has not started; the state is missing where no
--         record exists, damaged where none can be read
--- @include clock

local answers = {}
for _, record in items() do
  local seen = redis.pcall('HMGET', record, 'state', 'result', 'error', 'waiters', 'expires_ms', 'started_ms')
  local state, waiters = seen.err and 'damaged' or seen[1] or 'missing', seen[4] or ''
  local left_ms = false
  if state == 'scheduled' or state == 'queued' or state == 'running' then
    left_ms = seen[5] and not seen[6] and number(seen[5]) - now_ms()
    if not string.find(waiters, channel, 1, true) then
      redis.call('HSET', record, 'waiters', waiters .. ' ' .. channel)
    end
  end
  answers[#answers + 1] = { state, seen[2] or false, seen[3] or false, left_ms }
end
return answers
