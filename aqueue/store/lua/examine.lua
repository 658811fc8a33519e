-- examine: tell which jobs are not where their records say, or lack a part
--
-- FLAGS no-writes
-- KEYS queued     list  ids in order
-- KEYS suspects   list  ids one crash away from the limit
-- KEYS ranked     zset  jobs of other priorities than the usual, by rank and instant
-- KEYS held_back  zset  all jobs that wait before a closed gate
-- KEYS shelves    hash  paused tasks, and those whose shelves are to be emptied
-- KEYS scheduled  zset  id by due time
-- KEYS failed     zset  failed jobs
-- KEYS workers    zset  worker by lease deadline
-- EACH record     hash  the job
-- EACH payload    str   its envelope
-- ARGV prefix     str   of the queue's keys, for what the workers hold
-- ARGV look       int   entries at either end of each list among which a queued job is looked for; 0 does not look
-- ITEM id         str
-- RETURNS list of the fault (diagnosis) or '', and what changes when the job moves on
--- @include clock
--- @include diagnosis

local at = {
  prefix = prefix, queued = queued, suspects = suspects, ranked = ranked, held_back = held_back, shelves = shelves, scheduled = scheduled, failed = failed, workers = workers,
  now = now_ms(), look = look,
}
local answers = {}
for id, record, payload in items() do
  local fault, since = diagnose(at, id, record, payload)
  answers[#answers + 1] = { fault or '', since }
end
return answers
