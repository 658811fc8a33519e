-- promoting: queue the scheduled jobs that are due

local function promote(prefix, queued, scheduled, now, limit)
  local due = redis.call('ZRANGE', scheduled, '-inf', now, 'BYSCORE', 'LIMIT', 0, limit)
  if #due > 0 then
    for _, id in ipairs(due) do
      redis.call('HSET', prefix .. 'job:' .. id, 'state', 'queued')
    end
    redis.call('ZREM', scheduled, unpack(due))
    redis.call('LPUSH', queued, unpack(due))
  end
  return #due
end
