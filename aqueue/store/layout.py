"""How records are laid out in the arguments and replies of scripts, whose headers say the same, and read back.

What is between aqueue and its server may say anything. Readers take nothing for what it is not: they raise one of
`MISREAD`, and `understood` makes of that the one error that callers know.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, Final, Literal, TypeVar

from aqueue.errors import StoreError
from aqueue.job import JobError, JobId, JobState, LeaseToken, WorkerId
from aqueue.store.records import (
    Beat,
    Cancelled,
    Completed,
    Ended,
    Failed,
    Fault,
    Gone,
    Lease,
    Limited,
    NewJob,
    QueueStats,
    Released,
    Retried,
    ServerFacts,
    Settle,
    Shelf,
    Symptom,
    Turn,
    WorkerStats,
)
from aqueue.store.scripts import Arg

T = TypeVar("T")

MISREAD: Final = (ValueError, TypeError, AttributeError, LookupError, OverflowError, RecursionError)


def understood(what: str, read: Callable[[Any], T], reply: Any) -> T:
    """Read the answer to `what`. Errors: StoreError if it is no such answer."""
    try:
        return read(reply)
    except MISREAD as error:
        raise StoreError(
            f"The server's answer to {what} is none that aqueue knows ({type(error).__name__}: {str(error)[:SHOWN]}); "
            "look whether it is Redis or Valkey, and what stands in between."
        ) from error


SHOWN: Final = 200
"""Characters of what somebody else said in an error of ours."""


def integer(value: Any) -> int:
    """Take a whole number for what it is, and nothing else for one."""
    if type(value) is not int:
        raise TypeError(f"a whole number was expected, not {type(value).__name__}")
    return value


def text(value: Any) -> str:
    """Read words that may be anybody's; what UTF-8 cannot hold is replaced."""
    if type(value) is not bytes:
        raise TypeError(f"text was expected, not {type(value).__name__}")
    return value.decode("utf-8", "replace")


def content(value: Any) -> bytes | None:
    """Take stored bytes, or None where there are none."""
    if value is not None and type(value) is not bytes:
        raise TypeError(f"bytes were expected, not {type(value).__name__}")
    return value


def one_of(*words: str) -> Callable[[Any], str]:
    """Make a reader of one word."""

    def read(reply: Any) -> str:
        word = text(reply)
        if word not in words:
            raise ValueError(f"there is no word {word!r}")
        return word

    return read


def each(read: Callable[..., T], count: int) -> Callable[[Any], list[T]]:
    """Make a reader of one answer for each of so many items."""

    def read_all(reply: Any) -> list[T]:
        if type(reply) is not list or len(reply) != count:
            raise ValueError(f"{count} answers were expected")
        return [read(answer) for answer in reply]

    return read_all


def ended(answer: Any) -> Ended:
    """Read how a job has ended, from one answer of lua/await.lua."""
    state, result, error, left_ms = answer
    left = None if left_ms is None else integer(left_ms) / 1000
    try:
        return Ended(JobState(text(state)), content(result), content(error), left=left)
    except ValueError:
        return Ended(None, None, None, damaged=state != b"missing")


def symptom(answer: Any) -> Symptom:
    """Read what is wrong with one job, from one answer of lua/examine.lua."""
    fault, since = answer
    return Symptom(Fault(text(fault)) if fault else None, content(since) or b"")


def inspected(answer: Any) -> tuple[dict[str, bytes], bytes | None]:
    """Read one job, from one answer of lua/inspect.lua."""
    record, envelope = answer
    return pairs(record), content(envelope)


def lease(job_id: bytes, facts: bytes, envelope: bytes | None, token: LeaseToken, now_ms: int) -> Lease:
    """Read one lease; the facts of a job that nothing has happened to are the instant of its enqueue alone."""
    if (envelope is not None and type(envelope) is not bytes) or type(now_ms) is not int:
        raise TypeError("an envelope was expected, and the time")
    if facts.isdigit():
        enqueued_ms = int(facts)
        attempt, crashes, waited_ms, unknown_for_ms = 0, 0, max(0, now_ms - enqueued_ms), -1
    else:
        enqueued_ms, attempt, crashes, waited_ms, unknown_for_ms = map(int, facts.split())
    read_id: Any = job_id.decode("utf-8", "replace")  # not JobId(...), which would be a call for each job
    return Lease(
        read_id,
        token,
        attempt,
        crashes,
        waited_ms,
        enqueued_ms,
        unknown_for_ms,
        envelope or b"",
    )


STATES: Final[dict[bytes, Literal["OK", "PAUSED", "MORE"]]] = {b"OK": "OK", b"PAUSED": "PAUSED", b"MORE": "MORE"}


def turn(reply: Any, token: LeaseToken) -> Turn:
    """Read the answer of lua/settle_and_claim.lua."""
    refused, leased, facts, envelopes, now, next_due, state, *aside = reply
    leases = [lease(*one, token, now) for one in zip(leased, facts, envelopes, strict=True)]
    if not aside:
        return Turn(frozenset(ids(refused)), leases, seconds(next_due), STATES[state])
    ((expired, held_back),) = aside
    return Turn(frozenset(ids(refused)), leases, seconds(next_due), STATES[state], ids(expired), ids(held_back))


def beat(reply: Any) -> Beat:
    """Read the answer of lua/extend.lua."""
    lost, cancelled, returned, next_reclaim, next_due, caught, change = reply
    waits = seconds(next_reclaim), seconds(next_due)
    return Beat(ids(lost), ids(cancelled), ids(returned), *waits, integer(caught), text(change))


def reclaimed(reply: Any) -> tuple[list[Gone], bool]:
    """Read the answer of lua/reclaim.lua; each silent since its lease has ended."""
    gone, remain = reply
    return [_gone(*one) for one in gone], bool(integer(remain))


def _gone(name: Any, info: Any, requeued: Any, failed: Any, late_ms: Any) -> Gone:
    return Gone(WorkerId(text(name)), text(info), ids(requeued), ids(failed), integer(late_ms) / 1000)


def queue_stats(name: str) -> Callable[[Any], QueueStats]:
    """Make a reader of the answer of lua/stats.lua."""

    def read(reply: Any) -> QueueStats:
        (queued, scheduled, running, failed, held_back), paused, oldest, counters, workers, shelves = reply
        return QueueStats(
            name=name,
            queued=integer(queued),
            scheduled=integer(scheduled),
            running=integer(running),
            failed=integer(failed),
            held_back=integer(held_back),
            paused=bool(integer(paused)),
            oldest=seconds(oldest),
            counters={word: int(value) for word, value in pairs(counters).items() if _is_count(value)},
            workers=[_worker(*one) for one in workers],
            shelves=sorted((_shelf(*one) for one in shelves), key=lambda shelf: shelf.task),
        )

    return read


def _is_count(value: bytes) -> bool:
    """Say whether a counter can be read; one that cannot is left out, for the others are worth knowing."""
    return len(value) <= MOST_DIGITS and value.lstrip(b"-").isdigit()


MOST_DIGITS: Final = 20
"""Of a counter, which the server keeps in 64 bits."""


def _shelf(task: Any, paused_ms: Any, jobs: Any) -> Shelf:
    return Shelf(text(task), seconds(paused_ms), integer(jobs))


def _worker(name: Any, info: Any, count: Any, left_ms: Any) -> WorkerStats:
    return WorkerStats(WorkerId(text(name)), text(info), integer(count), integer(left_ms) / 1000)


def ids(reply: Any) -> list[JobId]:
    """Read a list of job ids."""
    if type(reply) is not list:
        raise TypeError(f"a list was expected, not {type(reply).__name__}")
    return [JobId(job_id.decode("utf-8", "replace")) for job_id in reply]


def as_many_ids(count: int) -> Callable[[Any], list[JobId]]:
    """Make a reader of one id for each of so many jobs."""

    def read(reply: Any) -> list[JobId]:
        found = ids(reply)
        if len(found) != count:
            raise ValueError(f"{count} ids were expected, not {len(found)}")
        return found

    return read


def pairs(flat: Any) -> dict[str, bytes]:
    """Read a hash, in the form of either protocol."""
    entries: Iterable[tuple[Any, Any]] = (
        flat.items() if isinstance(flat, dict) else zip(flat[::2], flat[1::2], strict=True)
    )
    return {text(key): content(value) or b"" for key, value in entries}


def seconds(ms: Any) -> float | None:
    """Read a span of milliseconds, where -1 is none."""
    return None if integer(ms) < 0 else ms / 1000


def names(reply: Any) -> list[str]:
    """Read a set of names, in the form of either protocol; one that is no text is left out."""
    if not isinstance(reply, list | set | frozenset):
        raise TypeError(f"a set was expected, not {type(reply).__name__}")
    return [name for name in map(text, reply) if "\ufffd" not in name]


def server_facts(reply: Any) -> ServerFacts:
    """Read the lines of INFO."""
    info = dict(line.split(":", 1) for line in text(reply).splitlines() if ":" in line)
    valkey = info.get("valkey_version")
    version = valkey or info.get("redis_version", "0")
    return ServerFacts(
        "valkey" if valkey else "redis",
        tuple(int(part) for part in version.split(".") if part.isdigit()),
        info.get("maxmemory_policy", "unknown"),
        info.get("aof_enabled") == "1",
        info.get("used_memory_human", "?"),
    )


def wishes(job: NewJob) -> str:
    """Write what a job asks for beyond being run at once; see lua/enqueue.lua."""
    if (
        not (job.delay_ms or job.at_ms or job.ttl_ms or job.front or job.unique or job.limits)
        and job.rank is job.result_ttl_ms is job.failure_ttl_ms is None
    ):
        return ""
    asked: dict[str, object] = {
        "delay_ms": job.delay_ms or None,
        "at_ms": job.at_ms or None,
        "ttl_ms": job.ttl_ms or None,
        "rank": job.rank,
        "front": 1 if job.front else None,
        "result_ttl_ms": job.result_ttl_ms,
        "failure_ttl_ms": job.failure_ttl_ms,
        "limits": job.limits or None,
    }
    if (unique := job.unique) is not None:
        asked["unique"] = unique.digest
        asked["scope"] = None if unique.scope == "finished" else unique.scope
        asked["window_ms"] = unique.window_ms or None
        asked["replace"] = 1 if unique.replace else None
        asked["max_wait_ms"] = unique.max_wait_ms or None
    return " ".join([f"{name}={value}" for name, value in asked.items() if value is not None])


def settle_fields(settle: Settle, encode_error: Callable[[JobId, JobError], bytes]) -> tuple[Arg, ...]:
    """Lay out id, token, ending and body; see lua/settle_and_claim.lua."""
    head = (settle.id, settle.token)
    match settle.outcome:
        case Completed(result, ttl, task):
            return (*head, _completed(ttl, task), result)
        case Retried(error=error, delay=delay):
            told = encode_error(settle.id, brief(error))
            return (*head, b"retried %d 0 %b" % (round(delay * 1000), told), encode_error(settle.id, error))
        case Failed(error, ttl):
            told = encode_error(settle.id, brief(error))
            return (*head, b"failed 0 %d %b" % (ttl, told), encode_error(settle.id, error))
        case Cancelled(ttl):
            return (*head, f"cancelled 0 {ttl} ", "")
        case Released(delay, unknown_task, error=error):
            why = "unknown" if unknown_task else "" if error is None else encode_error(settle.id, error)
            return (*head, f"released {round(delay * 1000)} 0 ", why)
        case Limited(delay, by):
            return (*head, f"limited {max(SOONEST_MS, math.ceil(delay * 1000))} 0 ", by.encode("utf-8", "replace"))


SOONEST_MS: Final = 5
"""After which a limited job comes back at the earliest, so that one that is turned away at once is no busy loop."""


BRIEF: Final = 200
"""Characters of an error's type and message in the history, of which each counted run leaves an entry."""


def brief(error: JobError) -> JobError:
    """Give what the history tells of an error."""
    return JobError(type=error.type[:BRIEF], message=error.message[:BRIEF])


@lru_cache
def _completed(ttl_ms: int, task: str) -> str:
    return f"completed 0 {ttl_ms} {task}"
