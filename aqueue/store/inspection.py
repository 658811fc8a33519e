"""A stored record as people read it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from aqueue.errors import JobCancelled, JobExpired, JobFailed, JobNotFound, StoreError
from aqueue.job import Attempt, JobId, JobInfo, JobState, QueueName, WorkerId
from aqueue.settings import instant
from aqueue.store.records import Ended
from aqueue.store.wire import Wire


def job_info(wire: Wire, job_id: JobId, record: Mapping[str, bytes], envelope: bytes | None) -> JobInfo:
    """Turn a record and its envelope into a snapshot.

    Errors: JobNotFound for an empty record, StoreError for one that cannot be read.
    """
    if not record:
        raise JobNotFound(job_id)
    try:
        return _read(wire, job_id, record, envelope)
    except (ValueError, KeyError, OverflowError) as error:
        raise damaged(wire.queue, job_id) from error


def result_of(wire: Wire, job_id: JobId, ended: Ended) -> bytes:
    """Give an ended job's encoded result, or raise how else it ended.

    Errors: JobFailed, JobCancelled, JobExpired; JobNotFound when no result was kept; StoreError if it is damaged.
    """
    if ended.damaged:
        raise damaged(wire.queue, job_id)
    match ended.state:
        case JobState.COMPLETED if ended.result is not None:
            return ended.result
        case JobState.FAILED:
            error = wire.decode_error(job_id, ended.error)
            raise JobFailed(job_id, error.type, error.message, error.traceback)
        case JobState.CANCELLED:
            raise JobCancelled(job_id)
        case JobState.EXPIRED:
            raise JobExpired(job_id)
        case _:
            raise JobNotFound(job_id)


def damaged(queue: QueueName, job_id: JobId) -> StoreError:
    return StoreError(
        f"The record of job {job_id} on queue {queue} is damaged; remove it with `aqueue delete {job_id}`."
    )


def _read(wire: Wire, job_id: JobId, record: Mapping[str, bytes], envelope: bytes | None) -> JobInfo:
    def at(name: str) -> Any:
        return instant(int(record[name])) if name in record else None

    call = None if envelope is None else wire.look(job_id, envelope)
    return JobInfo(
        id=job_id,
        queue=wire.queue,
        task=record.get("task", b"?").decode() if call is None else call.task,
        state=JobState(record["state"].decode()),
        payload=None if call is None else call.payload,
        args=None if call is None else call.args,
        kwargs=None if call is None else call.kwargs,
        attempt=int(record.get("attempt", 0)),
        crashes=int(record.get("crashes", 0)),
        enqueued_at=instant(int(record["enqueued_ms"])),
        due_at=at("due_ms"),
        started_at=at("started_ms"),
        ended_at=at("ended_ms"),
        worker=WorkerId(record["token"].decode().rpartition("/")[0]) if "token" in record else None,
        error=wire.decode_error(job_id, record["error"]) if "error" in record else None,
        result_bytes=len(record["result"]) if "result" in record else None,
        limited=int(record.get("limited", 0)),
        limited_by=record["limited_by"].decode("utf-8", "replace") if record.get("limited_by") else None,
        history=_history(wire, job_id, record.get("history", b"")),
    )


_RUN: Final = re.compile(rb"(\d{1,15}) (\d{1,15}) (\S+) ([a-z]+) (\d{1,9})\n")


def _history(wire: Wire, job_id: JobId, text: bytes) -> list[Attempt]:
    """Read the runs that lua/include/noting.lua has noted; nothing from what cannot be read on."""
    found: list[Attempt] = []
    place = 0
    while line := _RUN.match(text, place):
        started, ended, worker, outcome, length = line.groups()
        place = line.end() + int(length)
        told = text[line.end() : place]
        if len(told) < int(length):
            break
        found.append(
            Attempt(
                started_at=instant(int(started)),
                ended_at=instant(int(ended)),
                worker=WorkerId(worker.decode("utf-8", "replace")),
                outcome=outcome.decode(),
                error=wire.decode_error(job_id, told) if told else None,
            )
        )
    return found[::-1]
