"""How the command line shows log records: for people as text, for machines as JSON."""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import datetime, timedelta
from typing import Any, Final

import pytest

from aqueue.worker import logs

JOB: Final[dict[str, Any]] = {"job_id": "06h0n4701qdbka3j39t7keeq", "task": "mail", "queue": "default", "attempt": 2}


def record(message: str, *, name: str = "shop", level: int = logging.INFO, **more: Any) -> logging.LogRecord:
    made = logging.LogRecord(name, level, __file__, 1, message, (), None)
    made.__dict__.update(more)
    return made


def with_exception(message: str) -> logging.LogRecord:
    try:
        raise ValueError("no such user")
    except ValueError:
        made = record(message, level=logging.ERROR)
        made.exc_info = sys.exc_info()
        return made


def text(made: logging.LogRecord) -> str:
    """The line without its clock."""
    clock, _, line = logs.TextFormatter().format(made).partition(" ")
    assert re.fullmatch(r"\d\d:\d\d:\d\d", clock)
    return line


def parsed(made: logging.LogRecord) -> dict[str, Any]:
    line = logs.JsonFormatter().format(made)
    assert "\n" not in line
    found: dict[str, Any] = json.loads(line)
    return found


def test_text_of_a_job_is_marked_with_its_id_and_task() -> None:
    """Jobs run side by side, and so do their lines."""
    assert text(record("sent", **JOB)) == "[06h0n4701qdbka3j39t7keeq mail] sent"


def test_text_outside_of_a_job_is_marked_with_its_logger() -> None:
    """The message alone does not say who speaks."""
    assert text(record("connected", name="asyncpg.pool")) == "[asyncpg.pool] connected"


def test_lines_of_the_worker_carry_no_mark() -> None:
    """They name the job themselves."""
    assert text(record("stopped", name="aqueue.worker", **JOB)) == "stopped"


@pytest.mark.parametrize(
    ("level", "mark"), [(logging.DEBUG, ""), (logging.WARNING, "warning: "), (logging.ERROR, "error: ")]
)
def test_text_names_the_level_from_warning_on(level: int, mark: str) -> None:
    """On every line it would be noise."""
    assert text(record("late", level=level, **JOB)) == f"[06h0n4701qdbka3j39t7keeq mail] {mark}late"


def test_the_end_line_of_a_failed_job_is_not_called_an_error_twice() -> None:
    """Its arrow says so already."""
    ended = record("!! mail ValueError", name="aqueue.worker", level=logging.ERROR, event="failed", **JOB)
    assert text(ended) == "!! mail ValueError"


def test_text_shows_the_traceback() -> None:
    """`log.exception` is what people use."""
    shown = text(with_exception("not sent"))
    assert shown.startswith("[shop] error: not sent\nTraceback (most recent call last):\n")
    assert shown.endswith("ValueError: no such user")


def test_json_is_one_object_per_line_with_the_fields_of_the_job() -> None:
    """Log systems read line by line, and search by these names."""
    found = parsed(record("sent\nand more", event="completed", run_s=0.25, **JOB))
    written = datetime.fromisoformat(found.pop("time"))

    assert written.utcoffset() == timedelta(0)
    assert found == {
        "level": "info", "logger": "shop", "message": "sent\nand more", "event": "completed", "run_s": 0.25, **JOB
    }  # fmt: skip


def test_json_outside_of_a_job_has_no_empty_fields() -> None:
    """The filter leaves them empty; a search for job_id must not find those."""
    found = parsed(record("connected", job_id="", task="", queue="", attempt=0))
    assert set(found) == {"time", "level", "logger", "message"}


def test_a_wait_of_no_time_at_all_is_still_a_wait() -> None:
    """A sum over wait_s must not miss the best of them."""
    assert parsed(record("->", event="started", wait_s=0.0, **JOB))["wait_s"] == 0.0


def test_json_holds_the_traceback_and_what_json_does_not_know() -> None:
    """A record that cannot be written would be lost when it is needed most."""
    found = parsed(with_exception("not sent: Zoë \x1b"))
    assert found["exception"].endswith("ValueError: no such user")
    assert found["message"] == "not sent: Zoë \x1b"


@pytest.mark.parametrize(
    ("verbosity", "level"),
    [
        (3, logging.DEBUG), (1, logging.DEBUG), (0, logging.INFO), (-1, logging.WARNING), (-2, logging.ERROR),
        (-5, logging.ERROR),
    ],
)  # fmt: skip
def test_each_v_and_q_moves_the_level(verbosity: int, level: int) -> None:
    """-q under cron, -v when something is odd."""
    logs.configure("text", verbosity)
    assert logging.getLogger().level == level


@pytest.mark.parametrize(("log_format", "shown"), [("text", "[shop] warning: late"), ("json", '"message": "late"')])
def test_records_go_to_standard_error_in_the_chosen_form(
    capsys: pytest.CaptureFixture[str], log_format: str, shown: str
) -> None:
    """Standard output belongs to the application."""
    logs.configure(log_format, 0)
    logging.getLogger("shop").warning("late")

    written = capsys.readouterr()
    assert shown in written.err
    assert written.out == ""


def test_libraries_that_talk_much_are_quiet_even_with_v() -> None:
    """asyncio's own debug lines hide those one asked for."""
    logs.configure("text", 1)
    assert not logging.getLogger("asyncio").isEnabledFor(logging.INFO)
    assert logging.getLogger("shop").isEnabledFor(logging.DEBUG)
