-- notifying: tell those who wait for a job how it has ended; who is not reached asks again anyway

-- A result of at most this many bytes travels with the message that the job has ended, so that nobody need ask for it.
local TOLD_BYTES = 4096

-- result: nil where there is none, or none that is kept
local function tell_waiters(prefix, id, record, waiters, state, result)
  redis.call('HDEL', record, 'waiters')
  local message = 'ended ' .. id .. ' ' .. state
  if result and #result <= TOLD_BYTES then
    message = message .. ' ' .. result
  end
  for channel in string.gmatch(waiters, '%S+') do
    redis.pcall('SPUBLISH', prefix .. 'channel:' .. channel, message)
  end
end
