"""The examples, run as a reader would run them: each a process of its own, with nothing configured."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
LINES_ALLOWED = 60
SECONDS_ALLOWED = 60
SERVED = re.compile(r"Uvicorn running on (http://\S+) ")
RANDOM_FILE = Path("/proc/sys/kernel/random/uuid")
"""Gives something else to each reader, on Linux."""
TROUBLE = re.compile(r"Warning|Traceback|Exception ignored|never (retrieved|awaited)|unclosed")
"""What -W error cannot turn into an exit code, since it comes up where nobody can catch it."""


def environment(**more: str) -> dict[str, str]:
    """Give what a newcomer's shell has: no URL, so that each directory gets a server, and it goes away soon."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("AQUEUE_", "PYTHON"))}
    return {**plain, "AQUEUE_EMBEDDED_LINGER": "1", "COLUMNS": "120", **more}


def run(
    directory: Path, *command: str, code: int = 0, jobs_fail: bool = False, **more: str
) -> subprocess.CompletedProcess[str]:
    """Run Python on `command` in `directory` until it ends as it should; jobs that fail show their tracebacks."""
    done = subprocess.run(
        [sys.executable, "-W", "error", *command],
        cwd=directory,
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=SECONDS_ALLOWED,
        check=False,
    )
    assert done.returncode == code, done.stderr
    told = done.stderr.replace("failed for good\nTraceback", "") if jobs_fail else done.stderr
    assert not TROUBLE.search(told), done.stderr
    return done


def example(name: str) -> str:
    return str(EXAMPLES / f"{name}.py")


def wait_until(fact: Callable[[], object], what: Callable[[], str]) -> None:
    deadline = time.monotonic() + SECONDS_ALLOWED
    while not fact():
        assert time.monotonic() < deadline, what()
        time.sleep(0.02)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_an_example_fits_on_a_screen_and_is_run_here(path: Path) -> None:
    """A long example is not read, and one that nobody runs is soon wrong."""
    assert len(path.read_text().splitlines()) < LINES_ALLOWED
    assert f'"{path.stem}"' in Path(__file__).read_text()


def test_the_quickstart_reads_a_tree_and_verifies_what_it_tells(tmp_path: Path) -> None:
    """It is the first thing that anybody runs, and its numbers are the ones we show."""
    tree = tmp_path / "tree"
    contents = {f"{n % 3}/{n}.txt": b"a line\n" * (50 * n) for n in range(30)}
    contents |= {"binary": bytes(range(256)), "empty": b""}
    skipped = {"site-packages/x.py": b"x\n", "0/__pycache__/x.pyc": b"x\n"}
    for name, content in (contents | skipped).items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(content)
    printed = run(tmp_path, example("quickstart"), "tree").stdout
    totals = len(contents), sum(map(len, contents.values())), sum(content.count(b"\n") for content in contents.values())
    numbers = r"\s+│\s+".join(f"{total:,}" for total in totals)
    assert re.search(rf"│ {numbers}\s+│\s+[\d,]+\s+│\s+\d\.\d{{3}} s\s+│\s+\d\.\d{{3}} s\s+│", printed), printed
    assert printed.endswith("verified: totals equal a direct computation\n")


def test_the_quickstart_says_when_there_is_nothing_to_read(tmp_path: Path) -> None:
    """A mistyped directory is the likeliest mistake with it."""
    assert "no file in missing" in run(tmp_path, example("quickstart"), "missing", code=1).stderr


@pytest.mark.skipif(not RANDOM_FILE.exists(), reason="needs a file that reads differently each time")
def test_the_quickstart_fails_when_the_jobs_read_something_else(tmp_path: Path) -> None:
    """A verification that cannot fail would verify nothing."""
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "random").symlink_to(RANDOM_FILE)
    done = run(tmp_path, example("quickstart"), "tree", code=1)
    assert "totals differ from a direct computation" in done.stderr
    assert "verified" not in done.stdout


def test_the_embedded_worker_shares_one_pool_among_the_jobs_of_a_server(tmp_path: Path) -> None:
    """Opening the resource once, before the first job and closed after the last, is what `lifespan` promises."""
    assert run(tmp_path, example("embedded_worker")).stdout.splitlines() == [
        "pool opened",
        "attic: 14.0 on average",
        "attic: 15.0 on average",
        "cellar: 11.5 on average",
        "pool closed",
    ]


def test_the_retries_end_as_told_and_again_the_same_in_a_second_run(tmp_path: Path) -> None:
    """People run an example twice; what the first run left must not change the second."""
    for _ in range(2):
        done = run(tmp_path, example("retries"))
        assert done.stdout.splitlines() == [
            "unreliable completed: worked at attempt 3 of 3",
            "rate_limited completed: worked half a second later",
            "slow failed: TimeoutError: the attempt took longer than its timeout of 0.3 s",
            "price failed: Discard: no price for tea",
            "listed as failed: slow []",
            "listed as failed: price ['tea']",
            "price completed: tea costs 3",
        ]
        assert done.stderr.count("ConnectionError: the other side hung up - retry") == 2


def test_the_rules_of_retries_are_as_told(tmp_path: Path) -> None:
    """What it prints stands in its docstring too, and is to be the same in a second run."""
    for _ in range(2):
        printed = run(tmp_path, example("retry_rules"), jobs_fail=True).stdout.splitlines()
        assert len(printed) == 5
        assert "\n".join(printed) in Path(example("retry_rules")).read_text()


def test_a_paused_task_weights_and_a_cap_are_as_told(tmp_path: Path) -> None:
    """In a second run, too."""
    for _ in range(2):
        assert run(tmp_path, example("pausing")).stdout.splitlines() == [
            "set aside: {'mail': 3}",
            "while mail is paused: report report",
            "after the resume: mail 1, mail 2, mail 3, report",
            "of the first 12 starts: {'high': 8, 'default': 4}",
            "of default at once, with ten free slots: 2",
        ]


def test_order_uniqueness_and_limits_are_as_told(tmp_path: Path) -> None:
    """A second run must not meet what the first has left."""
    for _ in range(2):
        told = run(tmp_path, example("order")).stdout.splitlines()
        assert re.fullmatch(r"6 calls in (0\.[2-9]|[1-9].*) s", told.pop())  # two at once, then 20 per second
        assert told == [
            "1 bill for 3 calls",
            "1 alarm for 5 calls",
            "first",
            "in the middle",
            "one bill",
            "last",
            "at most 2 exports at once on ten free slots",
            "indexed readme in version 3",
        ]


def test_limiters_are_as_told(tmp_path: Path) -> None:
    """A second run may meet what the first has left: the window of a minute."""
    for _ in range(2):
        told = run(tmp_path, example("limiters")).stdout.splitlines()
        assert re.fullmatch(r"6 calls in (0\.[4-9]|[1-9].*) s", told.pop(1))  # never faster than the rate
        assert told == [
            "4 reports, at most 2 at once at the printer",
            "ann is to try again within a minute",
            "4 pushes done, 3 turned away at first, 0 attempts counted",
        ]


def test_failed_jobs_are_chosen_changed_and_deleted_as_told(tmp_path: Path) -> None:
    """What it prints stands at its head, and a second run meets nothing of the first."""
    text = (EXAMPLES / "failed_jobs.py").read_text()
    told = text.split('"""')[1].partition("\n\n")[2].splitlines()
    assert len(told) == 8
    for _ in range(2):
        assert run(tmp_path, example("failed_jobs")).stdout.splitlines() == told


def test_lifetimes_are_as_told(tmp_path: Path) -> None:
    """Its output is what its docstring says, and again in a second run."""
    for _ in range(2):
        told = (EXAMPLES / "lifetimes.py").read_text().split('"""')[1].partition("\n\n")[2].splitlines()
        assert run(tmp_path, example("lifetimes"), jobs_fail=True).stdout.splitlines() == told


def test_each_slot_of_a_schedule_comes_once(tmp_path: Path) -> None:
    """Three workers, and no scheduler."""
    assert run(tmp_path, example("cron")).stdout.splitlines() == [
        "scheduled: clean_up, poll, strike",
        "polled several times, each slot once",
        "a second has passed",
    ]


def test_schedules_made_at_run_time_are_started_counted_and_changed(tmp_path: Path) -> None:
    """And the docstring shows what a reader will see."""
    printed = run(tmp_path, example("run_time_schedules")).stdout.splitlines()
    docstring = Path(example("run_time_schedules")).read_text("utf-8").split('"""')[1]
    assert printed == [line.strip() for line in docstring.partition("Prints:")[2].strip().splitlines()]
    assert "a reminder, not before its time: True" in printed


def test_a_worker_told_to_stop_leaves_its_unfinished_job_to_the_next(tmp_path: Path) -> None:
    """A deploy must cost neither a job nor an attempt."""
    done = run(tmp_path, example("graceful"))
    processes = re.findall(r"process (\d+)", done.stdout)
    old, new = processes[0], processes[-1]
    assert done.stdout.splitlines() == [
        f"before SIGTERM: 0.2 s of work done by process {old}",
        f"within the grace of a second: 0.4 s of work done by process {old}",
        "the old worker exits with 0",
        "the third job is queued, with 0 attempts and 0 crashes counted",
        f"after the deploy: 2.5 s of work done by process {new}",
        "the new worker exits with 0",
    ]
    assert old != new
    assert "work] cleaning up" in done.stderr


def test_signed_jobs_run_and_no_others(tmp_path: Path) -> None:
    """What is copied from an example about keys had better hold."""
    why = "changed, or moved from another job, task or queue, or sealed with another key of the same id"
    assert run(tmp_path, example("signed_jobs")).stdout.splitlines() == [
        "paid 10 to Alice",
        "refused: not signed, and queue bank takes only what is",
        f"refused: not what was sealed for it: {why}",
        "paid 20 to Bob",
        "paid 30 to Carol",
        "paid 40 to Dave",
        "signed with Signing(autumn)",
    ]


def test_the_layers_of_middleware_say_what_the_example_says_they_do(tmp_path: Path) -> None:
    """Its output stands at its top."""
    told = re.findall(r"^    (\S.*)$", Path(example("middleware")).read_text().split('"""')[1], re.MULTILINE)
    assert len(told) == 7
    for _ in range(2):
        assert sorted(run(tmp_path, example("middleware")).stdout.splitlines()) == sorted(told)


@contextmanager
def web_app(directory: Path) -> Generator[tuple[subprocess.Popen[bytes], httpx.Client]]:
    """Serve the example on a port of the system's choice, until it is told to stop."""
    log = directory / "log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [sys.executable, "-W", "error", example("web_app")],
            cwd=directory,
            env=environment(PORT="0"),
            stdout=output,
            stderr=output,
        )
    try:
        wait_until(lambda: server.poll() is not None or SERVED.search(log.read_text()), log.read_text)
        found = SERVED.search(log.read_text())
        assert found is not None, log.read_text()
        with httpx.Client(base_url=found[1], timeout=SECONDS_ALLOWED) as client:
            yield server, client
    finally:
        server.kill()
        server.wait()
    assert not TROUBLE.search(log.read_text()), log.read_text()


def test_the_web_application_serves_jobs_and_obeys_ctrl_c(tmp_path: Path) -> None:
    """The worker is a guest in the process: the requests and the signals stay with the host."""
    with web_app(tmp_path) as (server, client):
        created = client.post("/jobs", json={"title": "Sales", "pages": 12})
        assert created.status_code == 202
        place = created.headers["location"]
        assert client.get(place).json()["state"] in ("queued", "running")
        with client.stream("GET", f"{place}/events") as events:
            assert events.headers["content-type"].startswith("text/event-stream")
            told = [line.removeprefix("data: ") for line in events.iter_lines() if line]
        assert told[-1] == "completed"
        assert {"running"} <= set(told[:-1]) <= {"queued", "running"}
        assert client.get(place).json() == {"state": "completed", "result": "Sales.pdf", "error": None}
        assert client.get("/jobs/unknown").status_code == client.get("/jobs/unknown/events").status_code == 404
        server.send_signal(signal.SIGINT)
        assert server.wait(SECONDS_ALLOWED) == 0


def test_the_jobs_of_the_examples_can_be_run_by_a_worker_elsewhere(tmp_path: Path) -> None:
    """Their comments say so; importing an example must not start it."""
    queues = ("quickstart:queue", "web_app:queue", "graceful:queue")
    done = run(tmp_path, "-m", "aqueue.worker", *queues, "--burst", PYTHONPATH=str(EXAMPLES))
    assert "tasks: read, render, work" in done.stderr
    assert "stopped: 0 ok" in done.stderr
