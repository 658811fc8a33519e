-- purge_failed: delete failed jobs, each only if it is still the one that was looked at
--
-- FLAGS allow-oom
-- KEYS failed     zset  failed jobs
-- EACH record     hash  the job
-- EACH payload    str   its envelope
-- ITEM id         str
-- ITEM ended_ms   str   when it failed; empty for what is listed without a record
-- RETURNS list of deleted | changed

-- A key of the wrong type is refused here, before anything is written.
redis.call('ZCARD', failed)

local words = {}
for id, ended, record, payload in items() do
  local seen = redis.pcall('HMGET', record, 'state', 'ended_ms') -- without either if it cannot be read
  local is_it = seen[1] == 'failed' and (seen[2] or '0') == ended
  if is_it then
    redis.call('DEL', record, payload)
  end
  if is_it or redis.call('EXISTS', record) == 0 then
    redis.call('ZREM', failed, id)
    words[#words + 1] = 'deleted'
  else
    words[#words + 1] = 'changed'
  end
end
return words
