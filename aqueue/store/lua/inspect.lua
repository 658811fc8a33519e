-- inspect: read whole jobs
--
-- FLAGS no-writes
-- EACH record     hash  the job
-- EACH payload    str   its envelope
-- ITEM id         str
-- RETURNS list of the record as field, value, …; and the envelope

local answers = {}
for _, record, payload in items() do
  answers[#answers + 1] = { redis.call('HGETALL', record), redis.call('GET', payload) }
end
return answers
