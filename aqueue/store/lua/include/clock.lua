-- clock: server time, the only clock that decides anything, and numbers out of records

-- Beyond it Lua's numbers are no longer exact.
local LARGEST = 2 ^ 53

-- What a damaged record holds instead of a number counts as 0; so do nan and inf, which Lua reads as numbers.
local function number(value)
  local read = tonumber(value or 0)
  return read and read >= -LARGEST and read <= LARGEST and read or 0
end

local function now_ms()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end
