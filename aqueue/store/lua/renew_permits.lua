-- renew_permits: let permits of limiters last for one more lease
--
-- A permit whose lease has ended may have been given to somebody else, and is not given again.
--
-- FLAGS allow-oom
-- EACH holders  zset  holder by when its permit ends, of one limiter
-- ITEM holder   str
-- ITEM lease_ms int
-- RETURNS 1 for each permit that lasts, 0 for one that was lost
--- @include clock
--- @include granting

local now, kept = now_ms(), {}

local function renew(at, holder, lease_ms)
  if not redis.call('ZSCORE', at.holders, holder) then
    return 0
  end
  give_permit(at, holder, lease_ms)
  return 1
end

for holder, lease_ms, holders in items() do
  -- What another program has put in the place of one limiter's key costs the others nothing.
  local intact, lasts = pcall(renew, { holders = holders, now = now }, holder, lease_ms)
  kept[#kept + 1] = intact and lasts or 0
end
return kept
