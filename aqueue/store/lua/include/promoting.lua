-- promoting: queue the scheduled jobs that are due
--
-- A record that cannot be written must not keep the others waiting; its id goes along, and a claim discards it.

local function promote(prefix, queued, scheduled, now, limit)
  local due = redis.call('ZRANGE', scheduled, '-inf', now, 'BYSCORE', 'LIMIT', 0, limit)
  if #due > 0 then
    redis.call('LLEN', queued) -- a key of the wrong type is refused here, before anything is written
    for _, id in ipairs(due) do
      redis.pcall('HSET', prefix .. 'job:' .. id, 'state', 'queued')
    end
    redis.call('ZREM', scheduled, unpack(due))
    redis.call('LPUSH', queued, unpack(due))
  end
  return #due
end
