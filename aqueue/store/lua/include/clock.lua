-- clock: server time, the only clock that decides anything, and numbers out of records

-- What a damaged record holds instead of a number counts as 0.
local function number(value)
  return tonumber(value or 0) or 0
end

local function now_ms()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end
