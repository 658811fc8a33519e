-- telling: say something to all workers of the queue; who does not hear it comes to know it otherwise

local function tell_workers(prefix, workers, message)
  for _, name in ipairs(redis.pcall('ZRANGE', workers, 0, -1)) do -- none if it cannot be read
    redis.call('SPUBLISH', prefix .. 'channel:' .. name, message)
  end
end
