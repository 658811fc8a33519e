"""`aqueue jobs`, `retry` and `purge`, where failed jobs are chosen among."""

from __future__ import annotations

import asyncio
import io
import json
import re
import shlex
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn, TypeAlias

import pytest
from rich.console import Console
from servers import Server, binaries
from typer.testing import CliRunner

from aqueue import Job, JobState, Queue, Retry, Worker
from aqueue.ops import failed_commands
from aqueue.ops.cli import app

WAIT_SECONDS = 30.0

Cli: TypeAlias = Callable[..., Coroutine[Any, Any, tuple[int, str, str]]]


@pytest.fixture
def engine() -> str:
    """One server will do: the scripts beneath are tested on all of them."""
    return str(next(iter(binaries())))


@pytest.fixture
def cli(server: Server) -> Cli:
    """Run `aqueue` in a thread; gives exit code, output and complaints."""

    def invoke(*args: str) -> tuple[int, str, str]:
        result = CliRunner(env={"AQUEUE_URL": server.url}).invoke(app, args)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.exit_code, result.stdout, result.stderr

    async def run(*args: str) -> tuple[int, str, str]:
        return await asyncio.to_thread(invoke, *args)

    return run


async def failures(queue: Queue) -> tuple[list[Job[Any]], list[Job[Any]]]:
    """Make five jobs that have failed: three of `fetch`, two of `parse`, which was tried twice."""

    @queue.task(retry=1)
    async def fetch(_: int) -> NoReturn:
        raise OSError("no such host\nsecond line")

    @queue.task(retry=Retry(max_attempts=2, backoff=0))
    async def parse(_: int) -> NoReturn:
        raise ValueError("not a number")

    fetched, parsed = [await fetch.enqueue(n) for n in range(3)], [await parse.enqueue(n) for n in range(2)]
    async with Worker(queue), asyncio.timeout(WAIT_SECONDS):
        for job in [*fetched, *parsed]:
            while await job.status() != JobState.FAILED:
                await asyncio.sleep(0.01)
    return fetched, parsed


def ids(text: str) -> list[str]:
    return [row["id"] for row in json.loads(text)["jobs"]]


async def test_failed_jobs_are_listed_by_task_error_and_age(cli: Cli, queue: Queue) -> None:
    """Without --state, too: nothing else can be chosen like that."""
    fetched, parsed = await failures(queue)
    for chosen, wanted in (
        (("--task", "fetch"), fetched),
        (("--error", "ValueError", "--state", "failed"), parsed),
        (("--error", "OSError", "--task", "parse"), []),
        (("--newer-than", "1h", "q"), [*fetched, *parsed]),
        (("--older-than", "1h"), []),
    ):
        code, out, _ = await cli("jobs", "--json", *chosen)
        assert (code, sorted(ids(out))) == (0, sorted(job.id for job in wanted)), chosen
    assert (await cli("jobs", "--task", "nothing"))[:2] == (0, "No such jobs.\n")


async def test_the_next_page_is_asked_for_as_the_last_one_says(cli: Cli, queue: Queue) -> None:
    """Copied from the terminal, whatever has failed or left since; and scripts have the same."""
    fetched, parsed = await failures(queue)
    code, out, _ = await cli("jobs", "q", "--state", "failed", "--limit", "2")
    more = re.search(r"There are more: aqueue (jobs q --state failed --after \S+)", out)
    assert more is not None
    assert code == 0
    first = re.findall(r"^(\S+) +q ", out, re.MULTILINE)
    await cli("delete", *first)
    code, out, _ = await cli(*shlex.split(more[1]), "--json")
    rest = json.loads(out)
    assert (code, rest["more"], rest["next"]) == (0, False, {})
    assert sorted([*first, *ids(out)]) == sorted(job.id for job in [*fetched, *parsed])
    code, out, _ = await cli("jobs", "--task", "fetch", "--limit", "1", "--json")
    assert (json.loads(out)["more"], list(json.loads(out)["next"])) == (True, ["q"])


async def test_a_page_may_be_long(cli: Cli, queue: Queue) -> None:
    """Longer than one look at the server."""
    await failures(queue)
    code, out, _ = await cli("jobs", "--state", "failed", "--limit", "2000", "--json")
    assert (code, len(ids(out)), json.loads(out)["more"]) == (0, 5, False)


async def test_chosen_jobs_are_run_again_later(cli: Cli, queue: Queue) -> None:
    """The service may need a while to recover."""
    fetched, parsed = await failures(queue)
    code, out, _ = await cli("retry", "--failed", "--error", "OSError", "--delay", "5m")
    assert (code, out) == (0, "q: 3 failed jobs queued again in 5m00s\n")
    assert [await job.status() for job in [*fetched, *parsed]] == ["scheduled"] * 3 + ["failed"] * 2
    code, out, _ = await cli("retry", "--failed", "q", "--task", "parse", "--json")
    assert json.loads(out) == {"queues": [{"queue": "q", "retried": 2, "skipped": 0}], "delay_s": 0}
    await cli("cancel", fetched[0].id)
    code, out, _ = await cli("retry", fetched[0].id, "--delay", "10m")
    assert (code, out) == (0, f"{fetched[0].id} on q: will be queued again after the delay\n")
    await queue.purge()


async def test_what_cannot_be_run_again_is_counted(cli: Cli, queue: Queue, server: Server) -> None:
    """A job whose arguments were lost, say, by eviction."""
    fetched, _ = await failures(queue)
    with server.client() as raw:
        raw.delete(f"aqueue:{{q}}:payload:{fetched[0].id}")
    code, out, _ = await cli("retry", "--failed")
    assert (code, out) == (0, "q: 4 failed jobs queued again, 1 could not be\n")
    await queue.purge()


async def test_chosen_jobs_are_deleted_once_that_is_confirmed(cli: Cli, queue: Queue) -> None:
    """First how many, then with --yes."""
    await failures(queue)
    chosen = ("purge", "q", "--failed", "--error", "ValueError", "--newer-than", "1h")
    assert await cli(*chosen) == (
        1, "q: 2 failed jobs would be deleted\n", "aqueue: Nothing was deleted; add --yes to do it.\n"
    )  # fmt: skip
    assert await queue.failed.count() == 5
    assert await cli(*chosen, "--yes") == (0, "q: 2 failed jobs deleted\n", "")
    _, out, _ = await cli("purge", "q", "--failed", "--yes", "--json")
    assert json.loads(out) == {"queues": [{"queue": "q", "what": "failed", "found": 3, "deleted": 3}]}


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("jobs --state queued --task x", "are for failed jobs, not for queued ones"),
        ("jobs --task x --offset 5", "go on with --after"),
        ("jobs --after 5:x", "--after goes on in one queue; name it"),
        ("jobs q --after nonsense", "after must be the `next` of another page"),
        ("jobs --older-than soon", "older_than must read like '90', '5m' or '1h30m'"),
        ("jobs --newer-than 1h --older-than 2h", "newer_than must reach further back"),
        ("jobs --error ''", "error must be an exception or its name"),
        ("retry --task x", "add --failed"),
        ("retry --failed --delay soon", "--delay must read like"),
        ("retry abc --delay -5", "--delay must be between 0"),
        ("purge q --older-than 1h --yes", "add --failed"),
        ("purge q --failed --older-than yesterday --yes", "older_than must read like"),
    ],
)
async def test_a_senseless_choice_is_refused_before_anything_is_done(
    command: str, says: str, cli: Cli, queue: Queue
) -> None:
    """Taken for something wider, it would delete what nobody wanted to."""
    job = await queue.remote("later").options(delay=60).enqueue()
    code, out, complaint = await cli(*shlex.split(command))
    assert (code, out) == (2, "")
    assert says in complaint
    assert await job.status() == JobState.SCHEDULED
    await job.cancel()


async def test_the_history_of_a_job_is_a_table(cli: Cli, queue: Queue) -> None:
    """Each attempt in a line; the traceback of the last one below."""
    _, (job, _) = await failures(queue)
    _, out, _ = await cli("job", job.id)
    rows = [re.split(r"  +", line.strip()) for line in out.splitlines()]
    place = rows.index(["run", "started", "ran", "worker", "outcome", "error"])
    first, second = rows[place + 1], rows[place + 2]
    assert (first[0], first[4:]) == ("1", ["retried", "ValueError: not a number"])
    assert (second[0], second[4:]) == ("2", ["failed", "ValueError: not a number"])
    assert re.fullmatch(r"\d+ms ago|\d+\.\ds ago", first[1])
    _, out, _ = await cli("job", job.id, "--json")
    shown = json.loads(out)["job"]["history"]
    assert [(run["outcome"], run["error"]["type"], run["worker"]) for run in shown] == [
        ("retried", "ValueError", first[3]), ("failed", "ValueError", second[3])
    ]  # fmt: skip
    assert set(shown[0]) == {"started_at", "ended_at", "ran_s", "worker", "outcome", "error"}


@pytest.mark.parametrize("terminal", [True, False])
def test_long_work_shows_how_far_it_is_at_a_terminal_only(*, terminal: bool) -> None:
    """And there not in the output, which may go elsewhere."""
    screen = io.StringIO()
    out = Console(file=screen, force_terminal=terminal, width=80)
    with failed_commands.progress(shown=True, console=out) as watch:
        watch("q", 500, 1100)
        watch("q", 1000, 1100)
    assert ("91%" in screen.getvalue()) == terminal
