"""Logs one line per moment, for applications that have no worker's log, or want their own."""

from __future__ import annotations

import logging
from typing import Any, Final

from aqueue import moments
from aqueue.middleware import Middleware

LEVELS: Final = {
    "retry": logging.WARNING,
    "exhausted": logging.WARNING,
    "failed": logging.ERROR,
    "lease_lost": logging.WARNING,
    "crashed": logging.WARNING,
}
"""Of what is no everyday matter."""


class Logging(Middleware):
    """Logs each moment as a line, with what it says as fields of the record for structured logs.

    Fields: event, queue, and of a job job_id, task, attempt, headers, wait_s, run_s, as far as they are known.
    """

    def __init__(self, logger: str | logging.Logger = "aqueue.jobs", *, level: int = logging.INFO) -> None:
        """Name the logger, and the level of all that is not a warning."""
        self._log = logging.getLogger(logger) if isinstance(logger, str) else logger
        self._level = level

    def _of_job(self, event: str, moment: moments.JobMoment, text: str = "") -> None:
        level = LEVELS.get(event, self._level)
        if not self._log.isEnabledFor(level):
            return
        fields: dict[str, Any] = {
            "event": event, "job_id": moment.job_id, "task": moment.task, "queue": moment.queue, "attempt": 0,
        }  # fmt: skip
        words = [event.replace("_", " "), moment.task, moment.job_id]
        if isinstance(moment, moments.RunMoment):
            fields |= {"attempt": moment.attempt, "wait_s": moment.waited, "headers": dict(moment.headers)}
            words.append(f"attempt {moment.attempt}")
        if isinstance(moment, moments.Ending):
            fields["run_s"] = moment.ran
            words.append(f"in {moment.ran:.3f}s")
        line = " ".join(words)
        self._log.log(level, "%s", f"{line}: {text}" if text else line, extra=fields)

    def _of_worker(self, event: str, queues: tuple[str, ...], text: str) -> None:
        self._log.log(self._level, "%s %s", event.replace("_", " "), text, extra={"event": event, "queues": queues})

    async def on_enqueued(self, event: moments.Enqueued) -> None:
        for task, job in zip(event.tasks, event.jobs, strict=True):
            fields = {"event": "enqueued", "job_id": job.id, "task": task, "queue": event.queue, "attempt": 0}
            kept = "" if job.created else ", which stood for it already"
            self._log.log(self._level, "enqueued %s %s%s", task, job.id, kept, extra=fields)

    async def on_started(self, event: moments.Started) -> None:
        self._of_job("started", event, f"waited {event.waited:.3f}s")

    async def on_completed(self, event: moments.Completed) -> None:
        self._of_job("completed", event)

    async def on_skipped(self, event: moments.Skipped) -> None:
        self._of_job("skipped", event, event.reason)

    async def on_retry(self, event: moments.Retrying) -> None:
        self._of_job("retry", event, f"{_brief(event)}, again in {event.delay:.1f}s")

    async def on_exhausted(self, event: moments.Exhausted) -> None:
        self._of_job("exhausted", event, _brief(event))

    async def on_failed(self, event: moments.Failed) -> None:
        self._of_job("failed", event, _brief(event))

    async def on_cancelled(self, event: moments.Cancelled) -> None:
        self._of_job("cancelled", event)

    async def on_released(self, event: moments.Released) -> None:
        self._of_job("released", event, event.reason)

    async def on_lease_lost(self, event: moments.LeaseLost) -> None:
        self._of_job("lease_lost", event)

    async def on_limited(self, event: moments.Limited) -> None:
        self._of_job("limited", event)

    async def on_expired(self, event: moments.Expired) -> None:
        self._of_job("expired", event)

    async def on_crashed(self, event: moments.Crashed) -> None:
        self._of_job("crashed", event, f"worker {event.worker}{', given up' if event.failed else ''}")

    async def on_worker_start(self, event: moments.WorkerMoment) -> None:
        self._of_worker("worker_start", event.queues, f"{event.worker} on {', '.join(event.queues)}")

    async def on_worker_stop(self, event: moments.WorkerMoment) -> None:
        self._of_worker("worker_stop", event.queues, f"{event.worker} on {', '.join(event.queues)}")

    async def on_process_start(self, event: moments.ProcessMoment) -> None:
        self._of_worker("process_start", event.queues, f"pid {event.pid}")

    async def on_process_stop(self, event: moments.ProcessMoment) -> None:
        self._of_worker("process_stop", event.queues, f"pid {event.pid}")


def _brief(event: moments.Unsuccessful) -> str:
    first = event.job_error.message.partition("\n")[0]
    return f"{event.job_error.type}: {first}" if first else event.job_error.type
