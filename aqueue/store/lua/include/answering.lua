-- answering: answer a turn that was sent again as it was answered before, without doing anything
--
-- Needs clock. Its leases are what this worker holds under the turn's token; its refusals were noted.

local function lease_again(at, id, token)
  local record = at.prefix .. 'job:' .. id
  local seen = redis.call('HMGET', record, 'attempt', 'crashes', 'enqueued_ms', 'due_ms', 'started_ms', 'unknown_ms')
  local waited = math.max(0, number(seen[5]) - number(seen[4] or seen[3]))
  local unknown_for = seen[6] and number(seen[5]) - number(seen[6]) or -1
  local envelope = redis.call('GET', at.prefix .. 'payload:' .. id) or ''
  return { id, token, number(seen[1]), number(seen[2]), waited, number(seen[3]), unknown_for, envelope }
end

local function answer_again(at, token, noted)
  local leases, refused, entries = {}, {}, redis.call('HGETALL', at.held)
  for i = 1, #entries, 2 do
    if entries[i + 1] == token then
      leases[#leases + 1] = lease_again(at, entries[i], token)
    end
  end
  for id in string.gmatch(noted or '', '%S+') do
    refused[#refused + 1] = id
  end
  return { refused, leases, -1, 'MORE' }
end
