-- readmit: give workers that the fleet has forgotten one more lease, after which what they hold is reclaimed
--
-- A worker that lives after all renews the lease and goes on, so that nothing runs twice.
--
-- FLAGS allow-oom
-- KEYS workers    zset  worker by lease deadline
-- EACH worker     hash  the worker
-- EACH inbox      list  what its BLMOVE has caught
-- EACH held       hash  id to token of its jobs
-- ARGV lease_ms   int
-- ITEM name       str   worker id
-- RETURNS names readmitted
--- @include clock

local deadline, readmitted = now_ms() + lease_ms, {}
for name, worker, inbox, held in items() do
  if redis.call('EXISTS', worker, inbox, held) > 0 and redis.call('ZADD', workers, 'NX', deadline, name) == 1 then
    readmitted[#readmitted + 1] = name
  end
end
return readmitted
