"""How records are laid out in the arguments and replies of scripts, whose headers say the same, and read back."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from aqueue.job import JobError, JobId, JobState, LeaseToken
from aqueue.store.records import (
    Cancelled,
    Completed,
    Ended,
    Failed,
    Fault,
    Lease,
    NewJob,
    Released,
    Retried,
    Settle,
    Symptom,
    Turn,
)
from aqueue.store.scripts import Arg


def ended(state: bytes, result: bytes | None, error: bytes | None) -> Ended:
    """Read how a job has ended, from one answer of lua/await.lua."""
    try:
        return Ended(JobState(state.decode()), result, error)
    except ValueError:
        return Ended(None, None, None, damaged=state != b"missing")


def symptom(fault: bytes, since: bytes) -> Symptom:
    """Read what is wrong with one job, from one answer of lua/examine.lua."""
    return Symptom(Fault(fault.decode()) if fault else None, since)


def lease(job_id: bytes, facts: bytes, envelope: bytes | None, token: LeaseToken, now_ms: int) -> Lease:
    """Read one lease; the facts of a job that nothing has happened to are the instant of its enqueue alone."""
    if facts.isdigit():
        enqueued_ms = int(facts)
        attempt, crashes, waited_ms, unknown_for_ms = 0, 0, max(0, now_ms - enqueued_ms), -1
    else:
        enqueued_ms, attempt, crashes, waited_ms, unknown_for_ms = map(int, facts.split())
    return Lease(
        JobId(job_id.decode()), token, attempt, crashes, waited_ms, enqueued_ms, unknown_for_ms, envelope or b""
    )


def turn(reply: list[Any], token: LeaseToken) -> Turn:
    """Read the answer of lua/settle_and_claim.lua."""
    refused, leased, facts, envelopes, now, next_due, state = reply
    leases = [lease(*one, token, now) for one in zip(leased, facts, envelopes, strict=True)]
    return Turn(frozenset(ids(refused)), leases, seconds(next_due), state.decode())


def ids(reply: list[bytes]) -> list[JobId]:
    """Read a list of job ids."""
    return [JobId(job_id.decode()) for job_id in reply]


def pairs(flat: Any) -> dict[str, bytes]:
    """Read a hash, in the form of either protocol."""
    if isinstance(flat, dict):
        return {key.decode(): value for key, value in flat.items()}
    return {key.decode(): value for key, value in zip(flat[::2], flat[1::2], strict=True)}


def seconds(ms: int) -> float | None:
    """Read a span of milliseconds, where -1 is none."""
    return None if ms < 0 else ms / 1000


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
            return (*head, f"retried {round(delay * 1000)} 0 ", encode_error(settle.id, error))
        case Failed(error, ttl):
            return (*head, f"failed 0 {ttl} ", encode_error(settle.id, error))
        case Cancelled(ttl):
            return (*head, f"cancelled 0 {ttl} ", "")
        case Released(delay, unknown_task):
            return (*head, f"released {round(delay * 1000)} 0 ", "unknown" if unknown_task else "")


@lru_cache
def _completed(ttl_ms: int, task: str) -> str:
    return f"completed 0 {ttl_ms} {task}"
