"""How the command line shows log records. An embedding application keeps its own configuration."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, Final

from aqueue.worker.journal import JobFilter

FIELDS: Final = ("event", "job_id", "task", "queue", "attempt", "wait_s", "run_s")


UNPRINTABLE: Final = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}
"""A job's error may say anything; it must not move the terminal's cursor."""


class TextFormatter(logging.Formatter):
    """`12:00:05 message`; records of other loggers are marked with the job during which they were emitted."""

    def __init__(self) -> None:
        super().__init__(datefmt="%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging's own name
        mark = ""
        if not record.name.startswith("aqueue"):
            job_id = getattr(record, "job_id", "")
            mark = f"[{job_id} {getattr(record, 'task', '')}] " if job_id else f"[{record.name}] "
        level = (
            f"{record.levelname.lower()}: "
            if record.levelno >= logging.WARNING and not hasattr(record, "event")
            else ""
        )
        return f"{self.formatTime(record, self.datefmt)} {mark}{level}{record.getMessage().translate(UNPRINTABLE)}"


class JsonFormatter(logging.Formatter):
    """One JSON object per record, with the job's fields on all that is emitted while it runs."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if getattr(record, "job_id", ""):
            line |= {name: value for name in FIELDS if (value := getattr(record, name, None)) is not None}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def configure(log_format: str, verbosity: int) -> None:
    """Send everything to standard error, in the chosen form, from the level that `-v` and `-q` ask for."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    handler.addFilter(JobFilter())
    level = {-1: logging.WARNING, 0: logging.INFO}.get(max(verbosity, -1), logging.DEBUG)
    if verbosity < -1:
        level = logging.ERROR
    logging.basicConfig(
        level=min(level, logging.WARNING) if level < logging.WARNING else level, handlers=[handler], force=True
    )
    for noisy in ("push_response", "asyncio", "watchfiles"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
