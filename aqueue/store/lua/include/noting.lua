-- noting: what is kept of the runs of a job that did not simply complete
--
-- Needs clock. A record's `history` is its counted runs, the last one first, as text. Each is a line of when the run began and
-- ended, its worker, how it ended and how many bytes its error has, which follow.

-- The runs that are kept; the oldest make way.
local KEPT_RUNS = 20

local SIZE_DIGITS = 9 -- of an error in bytes; what is longer was not written by us

local RUN = '^%d+ %d+ %S+ (%l+) (%d+)\n()'

-- The history without what is more than one run less than are kept, and without what cannot be read.
local function latest(history)
  local from = 1
  for _ = 1, KEPT_RUNS - 1 do
    local outcome, bytes, told = string.match(history, RUN, from)
    local after = outcome and #bytes <= SIZE_DIGITS and told + number(bytes)
    if not after or after > #history + 1 then
      break
    end
    from = after
  end
  return string.sub(history, 1, from - 1)
end

-- `told` is type and message of its error, however errors are written here; empty where it has none.
local function note(record, now, worker, outcome, told)
  local seen = redis.call('HMGET', record, 'started_ms', 'history')
  local line = string.format('%d %d %s %s %d\n', math.max(0, number(seen[1])), now, worker, outcome, #told)
  redis.call('HSET', record, 'history', line .. told .. latest(seen[2] or ''))
end
