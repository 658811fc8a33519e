-- granting: a permit of a limiter, with a lease of its own
--
-- Needs clock. `at` carries the limiter's keys and the time.

-- Keys go when the last of the instants has passed that a sorted set holds.
local function expire_with_last(zset, keys)
  local last = redis.call('ZRANGE', zset, -1, -1, 'WITHSCORES')[2]
  for _, key in ipairs(last and keys or {}) do
    redis.call('PEXPIREAT', key, math.ceil(number(last)) + 1)
  end
end

local function give_permit(at, holder, lease_ms)
  redis.call('ZADD', at.holders, at.now + lease_ms, holder)
  expire_with_last(at.holders, { at.holders })
end
