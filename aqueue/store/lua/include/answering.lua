-- answering: answer a turn that was sent again as it was answered before, without doing anything
--
-- Needs leasing. Its leases are what this worker holds under the turn's token; its refusals were noted.

local function answer_again(at, token, noted)
  local leased, facts, envelopes, refused = {}, {}, {}, {}
  local entries = redis.call('HGETALL', at.held)
  for i = 1, #entries, 2 do
    if entries[i + 1] == token then
      local seen = by_name(redis.pcall('HGETALL', at.prefix .. 'job:' .. entries[i])) -- empty if it cannot be read
      local envelope = redis.pcall('GET', at.prefix .. 'payload:' .. entries[i])
      leased[#leased + 1] = entries[i]
      facts[#facts + 1] = facts_of(seen, number(seen.started_ms))
      envelopes[#envelopes + 1] = type(envelope) == 'string' and envelope
    end
  end
  for id in string.gmatch(noted or '', '%S+') do
    refused[#refused + 1] = id
  end
  return { refused, leased, facts, envelopes, at.now, -1, 'MORE' }
end
