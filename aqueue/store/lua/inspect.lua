-- inspect: read whole jobs
--
-- FLAGS no-writes
-- EACH record     hash  the job
-- EACH payload    str   its envelope
-- ITEM id         str
-- RETURNS list of the record as field, value, …; and the envelope

local answers = {}
for _, record, payload in items() do
  local seen, envelope = redis.pcall('HGETALL', record), redis.pcall('GET', payload)
  local readable = type(envelope) == 'string' and envelope
  answers[#answers + 1] = { seen.err and { 'state', 'damaged' } or seen, readable }
end
return answers
