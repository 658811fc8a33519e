"""A stored record as people read it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aqueue.errors import AqueueError, JobCancelled, JobExpired, JobFailed, JobNotFound, StoreError
from aqueue.job import JobId, JobInfo, JobState, QueueName, WorkerId
from aqueue.settings import instant
from aqueue.store import codec
from aqueue.store.records import Ended


def job_info(queue: QueueName, job_id: JobId, record: Mapping[str, bytes], envelope: bytes | None) -> JobInfo:
    """Turn a record and its envelope into a snapshot.

    Errors: JobNotFound for an empty record, StoreError for one that cannot be read.
    """
    if not record:
        raise JobNotFound(job_id)
    try:
        return _read(queue, job_id, record, envelope)
    except (ValueError, KeyError, OverflowError) as error:
        raise damaged(queue, job_id) from error


def result_of(queue: QueueName, job_id: JobId, ended: Ended) -> bytes:
    """Give an ended job's encoded result, or raise how else it ended.

    Errors: JobFailed, JobCancelled, JobExpired; JobNotFound when no result was kept; StoreError if it is damaged.
    """
    if ended.damaged:
        raise damaged(queue, job_id)
    match ended.state:
        case JobState.COMPLETED if ended.result is not None:
            return ended.result
        case JobState.FAILED:
            error = codec.decode_error(ended.error)
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


def _read(queue: QueueName, job_id: JobId, record: Mapping[str, bytes], envelope: bytes | None) -> JobInfo:
    def at(name: str) -> Any:
        return instant(int(record[name])) if name in record else None

    task, args, kwargs = _call(record, envelope)
    return JobInfo(
        id=job_id,
        queue=queue,
        task=task,
        state=JobState(record["state"].decode()),
        args=args,
        kwargs=kwargs,
        attempt=int(record.get("attempt", 0)),
        crashes=int(record.get("crashes", 0)),
        enqueued_at=instant(int(record["enqueued_ms"])),
        due_at=at("due_ms"),
        started_at=at("started_ms"),
        ended_at=at("ended_ms"),
        worker=WorkerId(record["token"].decode().rpartition("/")[0]) if "token" in record else None,
        error=codec.decode_error(record["error"]) if "error" in record else None,
        result_bytes=len(record["result"]) if "result" in record else None,
    )


def _call(record: Mapping[str, bytes], envelope: bytes | None) -> tuple[str, list[Any] | None, dict[str, Any] | None]:
    """Give task, args and kwargs as far as they are known: a completed job has only its task's name."""
    if envelope is None:
        return record.get("task", b"?").decode(), None, None
    try:
        call = codec.decode_envelope(envelope)
        kwargs = {name: codec.decode_plain(raw) for name, raw in call.kwargs.items()}
        return call.task, codec.decode_plain(call.args), kwargs
    except (AqueueError, *codec.UNREADABLE):
        return "?", None, None
