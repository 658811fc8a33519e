-- await: read how jobs have ended, and ask to be told about those that have not
--
-- The caller listens on its channel before it asks, so that no end can fall between the two.
--
-- FLAGS allow-oom
-- EACH record     hash  the job
-- ARGV channel    str   of the caller
-- ITEM id         str
-- RETURNS list of state, result, error; the state is missing where no record exists, damaged where none can be read

local answers = {}
for _, record in items() do
  local seen = redis.pcall('HMGET', record, 'state', 'result', 'error', 'waiters')
  local state, waiters = seen.err and 'damaged' or seen[1] or 'missing', seen[4] or ''
  if state == 'scheduled' or state == 'queued' or state == 'running' then
    if not string.find(waiters, channel, 1, true) then
      redis.call('HSET', record, 'waiters', waiters .. ' ' .. channel)
    end
  end
  answers[#answers + 1] = { state, seen[2] or false, seen[3] or false }
end
return answers
