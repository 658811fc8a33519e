-- leasing: what a lease says of a job besides its id and envelope
--
-- Needs clock. One text: the instant of the enqueue alone for a fresh job; else also attempt, crashes, how long the job
-- has waited since it was due, and for how long workers have not known its task, -1 for never.

local function by_name(fields)
  local seen = {}
  for i = 1, #fields, 2 do
    seen[fields[i]] = fields[i + 1]
  end
  return seen
end

local function facts_of(seen, now)
  local enqueued = number(seen.enqueued_ms)
  local unknown_for = seen.unknown_ms and now - number(seen.unknown_ms) or -1
  local waited = math.max(0, now - (seen.due_ms and number(seen.due_ms) or enqueued))
  local attempt, crashes = math.max(0, number(seen.attempt)), math.max(0, number(seen.crashes))
  return string.format('%d %d %d %d %d', enqueued, attempt, crashes, waited, unknown_for)
end
