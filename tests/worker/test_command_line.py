"""`python -m aqueue.worker` as a process: what it says, how it ends, and how it says no."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import pytest
from leaks import leaks
from servers import Server, binaries

from aqueue import JobInfo, Queue, Settings, Signing
from aqueue.store.records import QueueStats

T = TypeVar("T")

WAIT_SECONDS: Final = 20.0
PROMPT_SECONDS: Final = 12.0
"""A worker that is told to stop now has ended by then, also on a busy machine."""
SETTLE_SECONDS: Final = 4.0
"""For so long a worker tries to store what it still knows."""

TASKS: Final = """
import asyncio
import logging
import time
from pathlib import Path

from aqueue import Queue

log = logging.getLogger("shop")
queue = Queue("default")
not_a_queue = 7

class Others:
    low = Queue("low")

@queue.task
async def double(n: int, password: str = "") -> int:
    log.info("doubling %d", n)
    log.warning("it is doubled")
    return 2 * n

@queue.task
async def wait_for(path: str) -> None:
    while not Path(path).exists():
        await asyncio.sleep(0.01)

@queue.task
def block(path: str) -> None:
    Path(path).touch()
    time.sleep(3600)

@queue.task(retry=1)
async def fetch() -> None:
    raise OSError("no such host")
"""


class WorkerProcess:
    """One run of the command, with the lines it has written so far."""

    def __init__(self, arguments: tuple[str, ...], cwd: Path, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "aqueue.worker", *arguments],
            cwd=cwd,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        self.lines.extend(iter(self._process.stdout.readline, ""))

    @property
    def text(self) -> str:
        return "".join(self.lines)

    @property
    def pid(self) -> int:
        return self._process.pid

    def said(self, pattern: str, times: int = 1) -> list[str]:
        """Wait until a pattern was written so often; give all matches."""

        def matches() -> list[str] | None:
            found = re.findall(pattern, self.text, re.MULTILINE)
            if len(found) < times:
                assert self._process.poll() is None, f"ended with {self._process.returncode}:\n{self.text}"
                return None
            return found

        return until(matches, lambda: f"{pattern!r} {times}x in:\n{self.text}")

    def reads(self, words: str) -> None:
        """Wait until something was written by the process, or by one that it has left behind."""
        until(lambda: words in self.text, lambda: f"{words!r} in:\n{self.text}")

    def signal(self, number: int = signal.SIGTERM) -> None:
        self._process.send_signal(number)

    def ended(self) -> int:
        """Wait for the end and give the exit code."""
        try:
            code = self._process.wait(WAIT_SECONDS)
        except subprocess.TimeoutExpired:
            pytest.fail(f"it did not end; it wrote:\n{self.text}")
        self._reader.join(WAIT_SECONDS)
        return code

    def clear_away(self) -> None:
        """End it whatever it does, and what it has started."""
        if self._process.poll() is None:
            children = self.children()
            self.signal(signal.SIGKILL)
            self._process.wait()
            for child in children:
                with contextlib.suppress(ProcessLookupError):  # it ends by itself without its supervisor
                    os.kill(child, signal.SIGKILL)
        self._reader.join(WAIT_SECONDS)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def children(self) -> list[int]:
        return [pid for pid in map(int, ps("pid=", "--ppid", self.pid).split()) if is_worker(pid)]


class Start(Protocol):
    def __call__(self, *arguments: str, url: str | None = ..., **environment: str) -> WorkerProcess: ...


def is_worker(pid: int) -> bool:
    return "aqueue.worker" in ps("args=", "-p", pid)


def ps(column: str, selection: str, pid: int) -> str:
    """Ask about processes; none at all is an answer too."""
    asked = ["ps", "-o", column, selection, str(pid)]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout


def until(fact: Callable[[], T | None], what: Callable[[], str] = lambda: "the fact") -> T:
    """Wait until a fact is there (not None, not False) and give it."""
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        found = fact()
        if found is not None and found is not False:
            return found
        assert time.monotonic() < deadline, f"still waiting for {what()}"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def own() -> Iterator[Server]:
    with Server(next(iter(binaries().values()))) as server:
        yield server


@pytest.fixture
def server(own: Server) -> Iterator[Server]:
    """One server is enough here: what workers do on each of them is tested elsewhere."""
    with own.client() as client:
        client.flushall()
        yield own
        assert not leaks(client)


@pytest.fixture
def start(server: Server, tmp_path: Path) -> Iterator[Start]:
    """Start worker processes in a directory that has a tasks.py, and see to it that none stays."""
    (tmp_path / "tasks.py").write_text(TASKS)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AQUEUE_")}
    started: list[WorkerProcess] = []

    def run(*arguments: str, url: str | None = None, **environment: str) -> WorkerProcess:
        everything = {**inherited, "AQUEUE_URL": url or server.url, "PYTHONDONTWRITEBYTECODE": "1", **environment}
        started.append(WorkerProcess(arguments, tmp_path, everything))
        return started[-1]

    yield run
    for process in started:
        process.clear_away()


def ask(server: Server, question: Callable[[Queue], Coroutine[Any, Any, T]], name: str = "default") -> T:
    async def asked() -> T:
        async with Queue(name, url=server.url) as queue:
            return await question(queue)

    return asyncio.run(asked())


def enqueue(server: Server, task: str, *args: Any, **kwargs: Any) -> str:
    async def add(queue: Queue) -> str:
        return (await queue.enqueue(task, *args, **kwargs)).id

    return ask(server, add)


def info(server: Server, job_id: str) -> JobInfo:
    return ask(server, lambda queue: queue.job(job_id).info())


def stats(server: Server) -> QueueStats:
    return ask(server, lambda queue: queue.stats())


def has_state(server: Server, job_id: str, state: str) -> None:
    until(
        lambda: info(server, job_id).state == state, lambda: f"job {job_id} to be {state}, not {info(server, job_id)}"
    )


# what it says


def test_the_banner_says_who_works_on_what_and_where(start: Start, server: Server) -> None:
    """The first lines answer most questions of the kind "why does it not run my job"."""
    worker = start("tasks:queue=6,max=2", "-c", "7")
    worker.said("tasks: ")
    worker.signal()

    assert worker.ended() == 0
    first, where, limits, tasks = (line.partition(" ")[2].strip() for line in worker.lines[:4])
    assert re.fullmatch(rf"worker \S+:{worker.pid} - aqueue [\d.]+, python [\d.]+\S*, uvloop", first)
    assert re.match(rf"(redis|valkey)\S* \S*? ?at {re.escape(server.url)}\b", where)
    assert limits == "queues default=6,max=2 - concurrency 7, timeout 300s, attempts 4, lease 15s"
    assert tasks == "tasks: block, double, fetch, wait_for"


def test_a_worker_takes_its_keys_from_the_environment_and_tells_their_names_only(start: Start, server: Server) -> None:
    """An operator sees which keys are in force, and whether what is unsealed is still taken."""
    keys = {name: base64.b64encode(name.encode() * 16).decode() for name in ("k1", "k2")}
    ring = ",".join(f"{name}:{key}" for name, key in keys.items())
    sealed = Queue("default", url=server.url, settings=Settings(seal=Signing(ring)))

    async def add(queue: Queue) -> tuple[str, str]:
        async with sealed:
            return (await sealed.enqueue("double", 21)).id, (await queue.enqueue("double", 4)).id

    good, stranger = ask(server, add)
    worker = start("tasks:queue", "--burst", "-v", AQUEUE_SIGNING_KEYS=ring)

    assert worker.ended() == 0
    assert "queue default: payloads signed with k1, k2 taken too\n" in worker.text
    assert re.search(rf"<- {good} double ok$", worker.text, re.MULTILINE)
    assert re.search(rf"!! {stranger} \? PayloadRefused: .+ failed for good$", worker.text, re.MULTILINE)
    assert not any(key in worker.text for key in keys.values())


def test_a_worker_whose_keys_cannot_be_used_does_not_start(start: Start) -> None:
    """Rather no worker than one that runs whatever comes."""
    worker = start("tasks:queue", "--burst", AQUEUE_SIGNING_KEYS="k1:c2VjcmV0,k2:c2VjcmV0")
    assert worker.ended() == 2
    assert "error: AQUEUE_SIGNING_KEYS: " in worker.text
    assert "c2VjcmV0" not in worker.text


def test_each_job_has_a_start_and_an_end_line(start: Start, server: Server) -> None:
    """With wait, run time, arguments and outcome: enough to follow a job without any tool."""
    good, bad = enqueue(server, "double", 21, password="x"), enqueue(server, "fetch")
    worker = start("tasks:queue", "--burst")

    assert worker.ended() == 0
    clock = r"^\d\d:\d\d:\d\d +\d+\.\d{3}s"
    for pattern in (
        rf'{clock} -> {good} double\(21, password="x"\)$',
        rf"^\d\d:\d\d:\d\d \[{good} double\] doubling 21$",
        rf"^\d\d:\d\d:\d\d \[{good} double\] warning: it is doubled$",
        rf"{clock} <- {good} double ok$",
        rf"{clock} !! {bad} fetch OSError: no such host - failed for good\nTraceback",
        r"stopped: 1 ok, 0 retried, 1 failed, 0 cancelled, 0 returned, up \d+s$",
    ):
        assert re.search(pattern, worker.text, re.MULTILINE), f"{pattern} is missing in:\n{worker.text}"


def test_json_logs_carry_the_job_on_every_record(start: Start, server: Server) -> None:
    """Also on those of the user's own loggers: only so can a log system gather all that one job said."""
    job = enqueue(server, "double", 21)
    worker = start("tasks:queue", "--burst", "--log-format", "json")

    assert worker.ended() == 0
    records = [json.loads(line) for line in worker.lines]
    assert all({"time", "level", "logger", "message"} <= set(record) for record in records)
    (own,) = [record for record in records if record["message"] == "doubling 21"]
    fields = {"job_id": job, "task": "double", "queue": "default", "attempt": 1}
    assert own.items() >= {**fields, "logger": "shop", "level": "info"}.items()
    started, completed = (
        [record for record in records if record.get("event") == event] for event in ("started", "completed")
    )
    assert started[0].items() >= fields.items()
    assert completed[0].items() >= fields.items()
    assert started[0]["wait_s"] >= 0
    assert completed[0]["run_s"] >= 0
    assert "job_id" not in records[0]


def test_quiet_leaves_only_warnings(start: Start, server: Server) -> None:
    """Under cron, output means trouble."""
    enqueue(server, "double", 1)
    worker = start("tasks:queue", "--burst", "-q")

    assert worker.ended() == 0
    assert [line.rpartition("] ")[2] for line in worker.lines] == ["warning: it is doubled\n"]


def test_twice_quiet_leaves_only_errors(start: Start, server: Server) -> None:
    """A job that failed for good is one."""
    enqueue(server, "double", 1)
    enqueue(server, "fetch")
    worker = start("tasks:queue", "--burst", "-qq")

    assert worker.ended() == 0
    assert "doubled" not in worker.text
    assert "failed for good" in worker.lines[0]


def test_arguments_can_be_kept_out_of_the_log(start: Start, server: Server) -> None:
    """They may be secrets."""
    enqueue(server, "double", 3, password="geheim")
    worker = start("tasks:queue", "--burst", "--no-log-arguments")

    assert worker.ended() == 0
    assert "double(…)" in worker.text
    assert "geheim" not in worker.text


def test_options_can_be_set_in_the_environment(start: Start, server: Server) -> None:
    """Containers are configured so."""
    worker = start("tasks:queue", AQUEUE_CONCURRENCY="3", AQUEUE_BURST="1", AQUEUE_LOG_FORMAT="json")

    assert worker.ended() == 0
    assert "concurrency 3" in worker.text
    assert json.loads(worker.lines[0])["level"] == "info"


def test_no_password_is_shown_while_it_works(start: Start, server: Server) -> None:
    """Logs are read by more people than may know it."""
    enqueue(server, "double", 1)
    url = server.url.replace("unix://", "unix://:geheim@")
    with server.client() as client:
        client.config_set("requirepass", "geheim")
        try:
            worker = start("tasks:queue", "--burst", "-v", url=url)
            assert worker.ended() == 0
        finally:
            client.config_set("requirepass", "")
    assert "at unix://:***@/" in worker.text
    assert "geheim" not in worker.text


def test_the_help_fits_a_screen_and_ends_in_examples(start: Start) -> None:
    """People copy examples; what scrolls away is not read."""
    worker = start("--help", COLUMNS="80")

    assert worker.ended() == 0
    assert len(worker.lines) <= 36
    assert max(map(len, worker.lines)) <= 96
    assert "python -m aqueue.worker tasks:queue" in worker.text.partition("examples:")[2]


# what it refuses


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Name at least one queue"),
        (["nothing:queue"], "There is no module 'nothing' for 'nothing:queue' in "),
        (["tasks.queue"], "There is no module 'tasks.queue'"),
        (["tasks.py:queue"], "names a file; write tasks:queue"),
        (["tasks:not_a_queue"], "'tasks:not_a_queue' is a int, not a Queue; module tasks has queue."),
        (["tasks:nothing"], "'tasks:nothing' does not exist, not a Queue; module tasks has queue."),
        (["tasks:queue", "tasks:queue"], "takes each queue once"),
        (["tasks:queue=0"], "'tasks:queue=0': its weight must be a whole number from 1 to 1,000,000, not '0'."),
        (["tasks:queue,max=0"], "'tasks:queue,max=0': its cap must be a whole number from 1 to 1,000,000, not '0'."),
        (["tasks:queue=3", "tasks:Others.low"], "weights must name all queues of the worker or none, and low has none"),
        (["tasks:queue", "--grace", "soon"], "must read like '90', '5m' or '1h30m', not 'soon'"),
        (["tasks:queue", "--url", "reddis://:geheim@host"], "'reddis://:***@host' is not an address of Redis"),
        (["--check", "tasks:queue"], "takes names of queues such as default"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(start: Start, arguments: list[str], message: str) -> None:
    """A traceback would hide what to do; 2 tells a supervisor that trying again is of no use."""
    worker = start(*arguments)

    assert worker.ended() == 2
    assert message in worker.text
    assert len(worker.lines) == 1
    assert "geheim" not in worker.text


def test_an_import_error_inside_the_module_shows_its_own_traceback(start: Start, tmp_path: Path) -> None:
    """ "Could not import tasks" would send people looking in the wrong place."""
    (tmp_path / "broken.py").write_text("import tasks\nimport not_installed_here\n")
    worker = start("broken:queue")

    assert worker.ended() == 1
    assert 'broken.py", line 2, in <module>' in worker.text
    assert "ModuleNotFoundError: No module named 'not_installed_here'" in worker.text
    assert "There is no module" not in worker.text


def test_a_module_with_one_queue_needs_no_attribute(start: Start) -> None:
    """The shortest command that can work should."""
    worker = start("tasks", "--burst")

    assert worker.ended() == 0
    assert "queues default" in worker.text


# how it ends


def test_sigterm_lets_running_jobs_finish_and_exits_0(start: Start, server: Server, tmp_path: Path) -> None:
    """A deploy must cost no job and look like no failure."""
    job = enqueue(server, "wait_for", str(tmp_path / "go"))
    worker = start("tasks:queue")
    worker.said("-> ")
    worker.signal()
    worker.said("stopping: 1 job")
    waiting = enqueue(server, "double", 1)
    (tmp_path / "go").touch()

    assert worker.ended() == 0
    assert info(server, job).state == "completed"
    assert info(server, waiting).state == "queued"
    assert "stopped: 1 ok" in worker.text
    assert not stats(server).workers


def test_a_job_that_outlives_the_grace_goes_back_uncounted(start: Start, server: Server, tmp_path: Path) -> None:
    """It is no fault of the job's that somebody deployed."""
    job = enqueue(server, "wait_for", str(tmp_path / "never"))
    worker = start("tasks:queue", "--grace", "0.1s")
    worker.said("-> ")
    worker.signal()

    assert worker.ended() == 0
    found = info(server, job)
    assert (found.state, found.attempt, found.crashes) == ("queued", 0, 0)
    assert "returned to the queue" in worker.text
    assert "1 returned" in worker.text


def test_a_second_signal_ends_it_now(start: Start, server: Server, tmp_path: Path) -> None:
    """The one at the terminal has lost patience."""
    job = enqueue(server, "wait_for", str(tmp_path / "never"))
    worker = start("tasks:queue", "--grace", "1h")
    worker.said("-> ")
    worker.signal(signal.SIGINT)
    worker.said("SIGINT: stopping$")
    begun = time.monotonic()
    worker.signal(signal.SIGTERM)

    assert worker.ended() == 0
    assert time.monotonic() - begun < PROMPT_SECONDS
    assert "SIGTERM: stopping now" in worker.text
    assert info(server, job).state == "queued"


def test_a_thread_that_cannot_be_ended_does_not_hold_the_process(start: Start, server: Server, tmp_path: Path) -> None:
    """Python waits for threads at exit; an orchestrator would kill the process, and all its other jobs with it."""
    job = enqueue(server, "block", str(tmp_path / "begun"))
    worker = start("tasks:queue", "--grace", "0")
    until((tmp_path / "begun").exists)
    begun = time.monotonic()
    worker.signal()

    assert worker.ended() == 0
    assert time.monotonic() - begun < PROMPT_SECONDS
    assert info(server, job).state == "queued"


def test_burst_works_until_nothing_is_queued(start: Start, server: Server) -> None:
    """For cron jobs and tests of whole applications."""
    jobs = [enqueue(server, "double", number) for number in range(3)]
    worker = start("tasks:queue", "--burst", "-c", "1")

    assert worker.ended() == 0
    assert {info(server, job).state for job in jobs} == {"completed"}


def test_burst_does_not_hang_in_a_supervisor(start: Start, server: Server) -> None:
    """Processes that end well have finished, so they are not started again."""
    enqueue(server, "double", 1)
    worker = start("tasks:queue", "--burst", "--processes", "2")

    assert worker.ended() == 0
    assert len(worker.said(r"worker \S+:\d+ -", 2)) == 2


def test_sigterm_ends_a_worker_whose_server_has_gone(start: Start, tmp_path: Path) -> None:
    """During an outage everything is restarted; whoever waits for the server then is killed, and so are its jobs."""
    with Server(next(iter(binaries().values()))) as doomed:
        enqueue(doomed, "wait_for", str(tmp_path / "never"))
        busy = start("tasks:queue", "--grace", "0.1s", url=doomed.url)
        busy.said("-> ")
        idle = start("tasks:queue", url=doomed.url)
        until(lambda: len(stats(doomed).workers) == 2)
        doomed.kill()
        for worker in (busy, idle):
            worker.said("redis is away")
        begun = time.monotonic()
        for worker in (busy, idle):
            worker.signal()

        assert [busy.ended(), idle.ended()] == [0, 0]
        assert time.monotonic() - begun < PROMPT_SECONDS + SETTLE_SECONDS
        assert "what this worker still held runs again when its lease ends" in busy.text


# several processes


def test_after_max_jobs_the_process_is_renewed(start: Start, server: Server) -> None:
    """The cure for libraries that leak memory."""
    jobs = [enqueue(server, "double", number) for number in range(5)]
    worker = start("tasks:queue", "--max-jobs", "2", "-c", "1")
    for job in jobs:
        has_state(server, job, "completed")
    pids = worker.said(r"worker \S+:(\d+) -", 3)
    worker.signal()

    assert worker.ended() == 0
    assert len(set(pids)) == len(pids)
    assert str(worker.pid) not in pids
    assert worker.text.count("stopped: 2 ok") == 2
    assert "error" not in worker.text


def test_two_processes_are_two_workers(start: Start, server: Server) -> None:
    """And SIGTERM to the one that was started ends both."""
    worker = start("tasks:queue", "--processes", "2")
    found = until(lambda: workers if len(workers := stats(server).workers) == 2 else None)
    pids = {json.loads(one.info)["pid"] for one in found}
    assert pids == set(worker.children())
    worker.signal()

    assert worker.ended() == 0
    assert worker.text.count("stopped:") == 2
    assert not any(is_worker(pid) for pid in pids)
    assert not stats(server).workers


def test_a_killed_process_is_started_again(start: Start, server: Server) -> None:
    """Out of memory is a fact of life."""
    worker = start("tasks:queue", "-p", "2")
    first = [int(pid) for pid in worker.said(r"worker \S+:(\d+) -", 2)]
    os.kill(first[0], signal.SIGKILL)
    worker.said(rf"error: worker process {first[0]} ended with signal SIGKILL, it is started again")
    pids = {int(pid) for pid in worker.said(r"worker \S+:(\d+) -", 3)}
    worker.signal()

    assert worker.ended() == 0
    assert len(pids) == 3


def test_the_workers_of_a_killed_supervisor_drain_and_end(start: Start, server: Server, tmp_path: Path) -> None:
    """Nobody would ever tell them to stop, and the next deploy would run beside them."""
    worker = start("tasks:queue", "-p", "2")
    worker.said(r"worker \S+:\d+ -", 2)
    running = enqueue(server, "wait_for", str(tmp_path / "go"))
    worker.said("-> ")
    pids = worker.children()
    worker.signal(signal.SIGKILL)
    worker.reads("stopping: 1 job")
    waiting = enqueue(server, "double", 1)
    (tmp_path / "go").touch()

    until(lambda: not any(map(is_worker, pids)))
    assert len(pids) == 2
    assert worker.text.count("the supervisor has gone: stopping") == 2
    assert info(server, running).state == "completed"
    assert info(server, waiting).state == "queued"
    assert not stats(server).workers


def test_a_supervisor_of_unusable_processes_gives_up(start: Start) -> None:
    """A wrong name stays wrong however often it is tried."""
    worker = start("nothing:queue", "-p", "2")

    assert worker.ended() == 2
    assert "There is no module 'nothing'" in worker.text


def test_a_changed_file_restarts_the_worker(start: Start, tmp_path: Path) -> None:
    """The development loop: save, and it runs."""
    worker = start("tasks:queue", "--reload")
    worker.said("tasks: block, double")

    def saved() -> bool:
        """Save until it is noticed: nobody knows when the watch has begun."""
        (tmp_path / "tasks.py").write_text(TASKS.replace("def double", "def twice") + f"# {time.monotonic()}\n")
        return "tasks.py changed, restarting" in worker.text

    until(saved)
    worker.said("tasks: block, fetch, twice")
    worker.signal()

    assert worker.ended() == 0


def test_reload_without_its_package_says_what_to_install(start: Start, tmp_path: Path) -> None:
    """It is an extra, and nobody reads the list of extras first."""
    (tmp_path / "watchfiles.py").write_text("raise ImportError('not installed')\n")
    worker = start("tasks:queue", "--reload")

    assert worker.ended() == 2
    assert 'pip install "aqueue-redis[reload]"' in worker.text
    assert "Traceback" not in worker.text


# whether it is alive


def test_check_tells_whether_a_live_worker_serves_the_queue(start: Start, server: Server, tmp_path: Path) -> None:
    """For the probes of orchestrators; it must not import the application."""
    unanswered = start("--check", "default", url=f"unix://:geheim@{tmp_path}/nobody")
    worker = start("tasks:queue")
    until(lambda: bool(stats(server).workers))
    enqueue(server, "double", 1)

    one, all_of_them, other = start("--check", "default"), start("--check"), start("--check", "default", "other")
    assert (one.ended(), all_of_them.ended(), other.ended()) == (0, 0, 1)
    assert "no live worker serves queue other" in other.text
    worker.signal()
    assert worker.ended() == 0
    assert start("--check").ended() == 1

    assert unanswered.ended() == 2  # no answer is not a yes
    assert "cannot be reached" in unanswered.text
    assert "geheim" not in unanswered.text


def test_a_prefix_is_for_the_probe(start: Start, server: Server) -> None:
    """A queue brings its own; to say it again, and differently, would be to serve nobody."""
    probe, worker = start("--check", "default", "--prefix", "shop"), start("tasks:queue", "--prefix", "shop")

    assert (probe.ended(), worker.ended()) == (1, 2)
    assert "write Settings(prefix=...), or set AQUEUE_PREFIX" in worker.text


def test_a_worker_waits_for_a_server_that_is_away(start: Start, tmp_path: Path) -> None:
    """In an orchestrator things start in any order: one line says what is being waited for, and SIGTERM works."""
    with Server(next(iter(binaries().values()))) as late:
        late.kill()
        patient = start("tasks:queue", url=late.url)
        stopped = start("tasks:queue", url=f"unix://:geheim@{tmp_path}/nobody")
        stopped.said(r"error: waiting for redis: Redis at unix://:\*\*\*@/\S+ cannot be reached")
        begun = time.monotonic()
        stopped.signal()

        assert stopped.ended() == 0
        assert time.monotonic() - begun < PROMPT_SECONDS
        assert stopped.text.count("cannot be reached") == 1
        assert "geheim" not in stopped.text

        patient.said("waiting for redis")
        late.start()
        has_state(late, enqueue(late, "double", 4), "completed")
        patient.signal()
        assert patient.ended() == 0
        assert patient.text.count("cannot be reached") == 1


def test_a_signal_is_heard_from_the_first_line_on(start: Start, tmp_path: Path) -> None:
    """The server may be slow to answer what the banner asks; to die of the signal then would look like a failure."""
    worker = start("tasks:queue", url=f"unix://{tmp_path}/nobody")
    worker.said(r"worker \S+:\d+ -")
    worker.signal()

    assert worker.ended() == 0
