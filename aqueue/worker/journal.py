"""What a worker says: one line per event, for people first.

A job's start line shows how long it waited, its end line how long it ran. Every record that is emitted while a job
runs, by whomever, can carry the job's id, task, queue and attempt: `JobFilter` adds them.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from typing import Any, Final

from aqueue.context import current_context
from aqueue.errors import AqueueError, StoreUnavailable, shown
from aqueue.job import Failure, JobError
from aqueue.retry import UNBOUNDED
from aqueue.store import codec
from aqueue.store.records import Cancelled, Completed, Failed, Gone, Limited, Outcome, Released, Retried
from aqueue.store.wire import line_of
from aqueue.worker.run import NAME_LIMIT, Reason, Run

log = logging.getLogger("aqueue.worker")

ARGUMENTS_LIMIT: Final = 80
"""Characters of a job's arguments in its start line."""


UNKNOWN_LIMIT: Final = 1000
"""Unknown names that are warned of; names may come from anybody, and are remembered."""


class JobFilter(logging.Filter):
    """Adds job_id, task, queue and attempt to each record; they are empty outside of a job."""

    def filter(self, record: logging.LogRecord) -> bool:
        if not hasattr(record, "job_id"):
            context = current_context.get()
            job = context.job if context is not None else None
            record.job_id = job.id if job is not None else ""
            record.queue = job.queue if job is not None else ""
            record.task = context.task if context is not None else ""
            record.attempt = context.attempt if context is not None else 0
        return True


class Journal:
    """The lines and the tally of one worker."""

    def __init__(self, *, show_arguments: bool = True) -> None:
        self.tally: Counter[str] = Counter()
        self._show_arguments = show_arguments
        self._started = time.monotonic()
        self._unknown: set[str] = set()
        self._too_new: set[str] = set()

    def started(self, queue: str, run: Run) -> None:
        if not log.isEnabledFor(logging.INFO):
            return
        try:
            task, envelope = line_of(run.lease.envelope)
        except AqueueError:
            return
        name = task[:NAME_LIMIT]
        shown = f"{name}({self._arguments(envelope)})"
        crashed = f" (crashed {run.lease.crashes}x before)" if run.lease.crashes else ""
        log.info(
            "%8.3fs -> %s %s%s", run.lease.waited_ms / 1000, run.lease.id, shown, crashed,
            extra=_fields(queue, run, name, event="started", wait_s=run.lease.waited_ms / 1000),
        )  # fmt: skip

    def _arguments(self, envelope: codec.Envelope | None) -> str:
        if envelope is None or not self._show_arguments:
            return "…"
        parts = [bytes(envelope.args).decode("utf-8", "replace")[1:-1]]
        parts += [f"{name}={bytes(raw).decode('utf-8', 'replace')}" for name, raw in envelope.kwargs.items()]
        text = ", ".join(part for part in parts if part)
        return text if len(text) <= ARGUMENTS_LIMIT else f"{text[:ARGUMENTS_LIMIT]}…"

    def ended(self, queue: str, run: Run, outcome: Outcome) -> None:
        """Write the end line of a run."""
        event, level, text, error = _told(run, outcome)
        self.tally[event] += 1
        if isinstance(outcome, Released) and outcome.unknown_task:
            return
        if log.isEnabledFor(level):
            mark = "<-" if isinstance(outcome, Completed) else "!!"
            log.log(
                level, "%8.3fs %s %s %s %s%s", run.ran, mark, run.lease.id, run.name, text,
                f"\n{error.traceback.rstrip()}" if error is not None and self._wants_traceback(outcome, error) else "",
                extra=_fields(queue, run, run.name, event=event, run_s=run.ran),
            )  # fmt: skip

    @staticmethod
    def _wants_traceback(outcome: Outcome, error: JobError) -> bool:
        return bool(error.traceback) and (isinstance(outcome, Failed) or log.isEnabledFor(logging.DEBUG))

    def unknown_task(self, queue: str, name: str, near: list[str], known: list[str]) -> None:
        """Warn once per name."""
        if name in self._unknown or len(self._unknown) >= UNKNOWN_LIMIT:
            return
        self._unknown.add(name)
        hint = (
            f"did you mean {' or '.join(near)}?" if near else f"registered here: {', '.join(sorted(known)) or 'none'}"
        )
        log.warning("no task %s on queue %s, its jobs are handed back for now; %s", shown(name), queue, hint)

    def too_new(self, queue: str) -> None:
        """Warn once per queue."""
        if queue not in self._too_new:
            self._too_new.add(queue)
            log.warning("a newer aqueue has enqueued jobs on queue %s, handed back for now; upgrade this worker", queue)

    def refused(self, queue: str, run: Run) -> None:
        self.tally["lease_lost"] += 1
        log.warning(
            "lease of %s %s was lost, its outcome was not stored; it runs elsewhere or will",
            run.lease.id, run.name, extra=_fields(queue, run, run.name, event="lease_lost"),
        )  # fmt: skip

    def gone(self, queue: str, gone: Gone) -> None:
        log.warning(
            "worker gone: %s (silent for %.0f s): %d jobs returned to %s, %d failed for good",
            _name_of(gone), gone.silent_for, len(gone.requeued), queue, len(gone.failed),
        )  # fmt: skip

    def summary(self) -> str:
        """Say what this worker has done since it was started."""
        words = {
            "completed": "ok",
            "retried": "retried",
            "failed": "failed",
            "cancelled": "cancelled",
            "released": "returned",
        }
        counts = ", ".join(f"{self.tally[event]} {word}" for event, word in words.items())
        return f"{counts}, up {duration(time.monotonic() - self._started)}"


class Outage:
    """Says once that Redis is away, and once that it is back, for however many agents notice."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._lock = threading.Lock()
        self._since: float | None = None

    def lost(self, error: Exception) -> None:
        with self._lock:
            if self._since is None:
                self._since = time.monotonic()
                what = "redis is away" if isinstance(error, StoreUnavailable) else "redis does not do what it is asked"
                log.error("%s, jobs go on and the worker waits: %s", what, error)

    def back(self) -> None:
        with self._lock:
            if self._since is not None:
                log.warning("redis is back at %s after %s", self._label, duration(time.monotonic() - self._since))
                self._since = None


def duration(total: float) -> str:
    """Write seconds as people say them: 4s, 3m12s, 1h02m."""
    whole = int(total)
    if whole < 60:  # noqa: PLR2004  # a minute
        return f"{whole}s"
    if whole < 3600:  # noqa: PLR2004  # an hour
        return f"{whole // 60}m{whole % 60:02}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02}m"


def _told(run: Run, outcome: Outcome) -> tuple[str, int, str, JobError | None]:
    """Give event, level, text and error of an end."""
    match outcome:
        case Completed():
            return "completed", logging.INFO, "ok", None
        case Retried(error, delay, max_attempts):
            bound = "" if max_attempts == UNBOUNDED else f"/{max_attempts}"
            text = f"{_brief(error)} - retry {run.lease.attempt + 2}{bound} in {delay:.1f}s"
            return "retried", logging.WARNING, text, error
        case Failed(error):
            rule = "not retried, " if error.failure is Failure.NOT_RETRIED else ""
            return "failed", logging.ERROR, f"{_brief(error)} - {rule}failed for good", error
        case Cancelled():
            return "cancelled", logging.INFO, "cancelled", None
        case Limited(delay, by):
            return "limited", logging.INFO, f"limited{f' by {by}' if by else ''} - again in {delay:.1f}s", None
        case Released():
            return "released", logging.INFO, _why_released(run, outcome), None


def _why_released(run: Run, outcome: Released) -> str:
    if outcome.error is not None:
        return f"{_brief(outcome.error)} - again in {outcome.delay:.1f}s"
    return "lease lost" if run.reason is Reason.LEASE_LOST else "returned to the queue"


def _brief(error: JobError) -> str:
    first = error.message.splitlines()[0] if error.message else ""
    return f"{error.type}: {first}" if first else error.type


def _fields(queue: str, run: Run, task: str, **more: Any) -> dict[str, Any]:
    return {"job_id": run.lease.id, "queue": queue, "task": task, "attempt": run.lease.attempt + 1, **more}


def _name_of(gone: Gone) -> str:
    return codec.worker_name(gone.info) or gone.worker
