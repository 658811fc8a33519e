"""The `aqueue` command line: what it tells, what it does, and how it says no."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any, Final, NoReturn, TypeAlias

import pytest
import redis
from servers import Server, binaries
from typer.testing import CliRunner

from aqueue import Encryption, Job, JobState, Queue, RateLimited, Retry, Settings, Signing, Worker
from aqueue.ops.cli import app, main
from aqueue.ops.render import duration, plain
from aqueue.store import connection

COMMANDS: Final = ("stats", "jobs", "schedules", "job", "retry", "cancel", "delete", "pause", "resume", "purge")
WAIT_SECONDS: Final = 30.0
SCREEN_LINES: Final = 24
SCREEN_COLUMNS: Final = 84


class Answer:
    """What one run of the command line has printed."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code = code
        self.out = out
        self.err = err

    @property
    def document(self) -> Any:
        return json.loads(self.out)


Cli: TypeAlias = Callable[..., Coroutine[Any, Any, Answer]]


def invoke(*args: str, url: str | None = None) -> Answer:
    result = CliRunner(env={"AQUEUE_URL": url}).invoke(app, args)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return Answer(result.exit_code, result.stdout, result.stderr)


@pytest.fixture
def engine() -> str:
    """One server will do: the scripts beneath are tested on all of them."""
    return str(next(iter(binaries())))


@pytest.fixture
def cli(server: Server) -> Cli:
    """Run `aqueue` in this process, in a thread, for it brings an event loop of its own."""

    async def run(*args: str) -> Answer:
        return await asyncio.to_thread(invoke, *args, url=server.url)

    return run


@pytest.fixture
async def other(server: Server) -> AsyncIterator[Queue]:
    async with Queue("other", url=server.url) as queue:
        yield queue


async def until(fact: Callable[[], Coroutine[Any, Any, bool]]) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        while not await fact():
            await asyncio.sleep(0.01)


async def ended(job: Job[Any]) -> JobState:
    async def fact() -> bool:
        return (await job.status()).ended

    await until(fact)
    return await job.status()


async def running(job: Job[Any]) -> None:
    async def fact() -> bool:
        return await job.status() == JobState.RUNNING

    await until(fact)


async def failed_jobs(queue: Queue, count: int, message: str = "no such host") -> list[Job[Any]]:
    """Make jobs that have failed for good."""

    async def fetch(number: int) -> NoReturn:
        raise OSError(message)

    task = queue.task(name="fetch", retry=1)(fetch)
    jobs = [await task.enqueue(number) for number in range(count)]
    async with Worker(queue):
        for job in jobs:
            assert await ended(job) == JobState.FAILED
    return jobs


async def completed_job(queue: Queue) -> Job[int]:
    @queue.task
    async def double(n: int) -> int:
        return 2 * n

    job = await double.enqueue(21)
    async with Worker(queue):
        await job.result(timeout=WAIT_SECONDS)
    return job


class Endless:
    """A worker with a job that runs until it is cancelled."""

    def __init__(self, *queues: Queue, concurrency: int = 10, **options: Any) -> None:
        self._worker = Worker(*queues, concurrency=concurrency, grace=0, **options)
        self._queue = queues[0]

    async def __aenter__(self) -> Job[None]:
        @self._queue.task
        async def wait() -> None:
            await asyncio.get_running_loop().create_future()

        self.job = await wait.enqueue()
        await self._worker.__aenter__()
        await running(self.job)
        return self.job

    async def __aexit__(self, *_: object) -> None:
        self._worker.stop(now=True)
        await self._worker.__aexit__()


# stats


async def test_stats_count_what_each_queue_holds(cli: Cli, queue: Queue, other: Queue) -> None:
    """The first thing anybody asks in an incident."""
    await failed_jobs(queue, 2)
    await queue.enqueue("later")
    await queue.remote("later").options(delay=60).enqueue()
    await other.pause()

    answer = await cli("stats")

    header, one, two = (line.split() for line in answer.out.splitlines()[:3])
    assert header == ["queue", "queued", "scheduled", "running", "failed", "paused", "oldest", "workers"]
    assert one == ["other", "0", "0", "0", "0", "paused", "-", "0"]
    assert two[:6] + two[7:] == ["q", "1", "1", "0", "2", "-", "0"]
    assert re.fullmatch(r"[\d.]+m?s", two[6])
    assert answer.code == 0
    assert "No worker is alive." in answer.out


async def test_stats_as_json_keep_their_keys(cli: Cli, queue: Queue) -> None:
    """Scripts and alerts read them."""
    async with Endless(queue, concurrency=7) as job:
        document = (await cli("stats", "--json")).document
        (record,) = document["workers"]
        assert (await job.info()).worker == record["worker"]

    assert set(document) == {"url", "queues", "workers"}
    (row,) = document["queues"]
    assert set(row) == {
        "queue", "queued", "held_back", "shelved", "scheduled", "running", "failed", "paused", "paused_tasks",
        "oldest_s", "workers", "counters",
    }  # fmt: skip
    assert (row["queue"], row["running"], row["workers"], row["paused"]) == ("q", 1, 1, False)
    assert set(record) == {
        "worker", "host", "pid", "version", "queues", "running", "concurrency", "lease_s", "weights", "caps",
    }  # fmt: skip
    assert (record["host"], record["pid"]) == (socket.gethostname(), os.getpid())
    assert (record["running"], record["concurrency"], record["queues"]) == (1, 7, ["q"])
    assert 0 < record["lease_s"] <= queue.settings.lease


async def test_a_worker_of_two_queues_is_shown_once(cli: Cli, queue: Queue, other: Queue) -> None:
    """Two lines for one process would suggest twice the capacity."""
    await other.enqueue("nothing")
    await other.purge()
    async with Endless(queue, other, concurrency=3):
        lines = (await cli("stats")).out.splitlines()

    (shown,) = [line.split() for line in lines if line.startswith(f"{socket.gethostname()}:{os.getpid()}")]
    assert shown[1] == "1/3"
    assert shown[3:] == ["other,", "q"]


async def test_a_worker_is_shown_with_its_weights_and_caps(cli: Cli, queue: Queue, other: Queue) -> None:
    """Why does one queue move on and the other does not? It is written as on the worker's command line."""
    await other.enqueue("nothing")
    await other.purge()
    async with Endless(queue, other, concurrency=3, weights={queue: 6, other: 3}, caps={other: 2}):
        lines, document = (await cli("stats")).out.splitlines(), (await cli("stats", "--json")).document

    assert any(line.endswith("other=3,max=2, q=6") for line in lines)
    (record,) = document["workers"]
    assert (record["weights"], record["caps"]) == ({"q": 6, "other": 3}, {"other": 2})


async def test_a_worker_whose_lease_has_ended_does_not_count_as_alive(cli: Cli, queue: Queue, raw: redis.Redis) -> None:
    """A crashed worker is what an operator looks for."""
    await queue.enqueue("later")
    store = await queue.store()
    raw.zadd(store.keys.workers, {"dead": 1000})
    raw.hset(f"{store.keys.base}worker:dead", "info", "not json")

    text, document = (await cli("stats")).out, (await cli("stats", "--json")).document
    raw.delete(store.keys.workers, f"{store.keys.base}worker:dead")

    assert document["queues"][0]["workers"] == 0
    assert document["workers"][0]["lease_s"] < 0
    assert re.search(r"\?:0 .* ended \d+d\d\dh ago", text)


async def test_stats_of_an_unused_server_say_where_they_looked(cli: Cli, server: Server) -> None:
    """Most often it is the wrong server, or the wrong directory."""
    assert (await cli("stats")).out == f"No queue was ever used at {server.url}.\n"
    assert (await cli("stats", "--json")).document == {"url": server.url, "queues": [], "workers": []}


async def test_stats_of_chosen_queues_leave_the_others_out(cli: Cli, queue: Queue, other: Queue) -> None:
    """On a shared server one looks after one's own."""
    await queue.enqueue("later")
    await other.enqueue("later")

    document = (await cli("stats", "other", "--json")).document

    assert [row["queue"] for row in document["queues"]] == ["other"]


# jobs


async def test_jobs_lists_every_state_with_what_went_wrong(cli: Cli, queue: Queue) -> None:
    """One look must show what waits, runs and failed, and why."""
    (broken,) = await failed_jobs(queue, 1, "no such host\nsecond line")
    delayed = await queue.remote("later").options(delay=60).enqueue()
    async with Endless(queue) as long:
        await queue.pause()
        waiting = await queue.enqueue("later")
        answer = await cli("jobs")

    lines = [re.split(r"  +", line.strip()) for line in answer.out.splitlines()]
    assert lines[0] == ["id", "queue", "task", "state", "attempt", "age", "error"]
    assert lines[1][:5] == [long.id, "q", "wait", "running", "0"]
    assert lines[2][:5] == [waiting.id, "q", "later", "queued", "0"]
    assert lines[3][:5] == [delayed.id, "q", "later", "scheduled", "0"]
    assert re.fullmatch(r"in 5\d\.\ds|in 1m00s", lines[3][5])
    assert lines[4][:5] == [broken.id, "q", "fetch", "failed", "1"]
    assert lines[4][6] == "OSError: no such host"
    assert answer.code == 0


async def test_jobs_as_json_keep_their_keys(cli: Cli, queue: Queue) -> None:
    """Scripts feed the ids to other commands."""
    (broken,) = await failed_jobs(queue, 1)

    document = (await cli("jobs", "q", "--state", "failed", "--json")).document

    assert set(document) == {"now", "jobs", "more", "next"}
    (row,) = document["jobs"]
    assert set(row) == {
        "id", "queue", "task", "state", "attempt", "crashes", "payload", "args", "kwargs", "enqueued_at", "due_at",
        "started_at", "ended_at", "waited_s", "ran_s", "worker", "error", "failure", "result_bytes",
        "limited", "limited_by",
        "history",
    }  # fmt: skip
    assert (row["id"], row["state"], row["args"], row["kwargs"]) == (broken.id, "failed", [0], {})
    assert set(row["error"]) == {"type", "message", "traceback"}
    assert document["more"] is False


async def test_a_page_holds_what_was_asked_for_and_says_when_there_is_more(cli: Cli, queue: Queue) -> None:
    """A long list must not look complete."""
    ids = [(await queue.enqueue("later", number)).id for number in range(5)]

    first, second = [await cli("jobs", "--limit", "3", "--offset", offset) for offset in ("0", "3")]

    assert [line.split()[0] for line in first.out.splitlines()[1:4]] == ids[:3]
    assert "There are more" in first.out
    assert [line.split()[0] for line in second.out.splitlines()[1:]] == ids[3:]


async def test_cancelled_jobs_at_the_front_do_not_hide_those_behind(cli: Cli, queue: Queue) -> None:
    """Their ids stay in the list until a worker comes; without one, the queue would look empty."""
    cancelled = [await queue.enqueue("later") for _ in range(8)]
    behind = [await queue.enqueue("later") for _ in range(3)]
    for job in cancelled:
        await job.cancel()

    pages = [(await cli("jobs", "--json", "--limit", "2", "--offset", offset)).document for offset in ("0", "2")]

    assert [[row["id"] for row in page["jobs"]] for page in pages] == [
        [behind[0].id, behind[1].id],
        [behind[2].id],
    ]
    assert [page["more"] for page in pages] == [True, False]


@pytest.mark.parametrize("state", ["completed", "cancelled", "nonsense"])
async def test_states_that_are_not_listed_are_refused_in_words(cli: Cli, queue: Queue, state: str) -> None:
    """Nobody can know which states can be listed without being told."""
    await queue.enqueue("later")

    answer = await cli("jobs", "--state", state)

    assert answer.code == 2
    assert answer.err.startswith(f"aqueue: Jobs that are {state} are not listed")
    assert answer.out == ""


async def test_no_jobs_is_an_answer_too(cli: Cli, queue: Queue) -> None:
    """An empty table looks like a failure of the tool."""
    await queue.pause()
    assert (await cli("jobs", "q")).out == "No such jobs.\n"


# job


async def test_a_failed_job_is_shown_with_its_traceback(cli: Cli, queue: Queue, other: Queue) -> None:
    """This is where the search for a cause begins."""
    await other.enqueue("later")
    (broken,) = await failed_jobs(queue, 1)

    answer = await cli("job", broken.id)

    shown = dict(line.split(maxsplit=1) for line in answer.out.partition("\n\n")[0].splitlines())
    assert (shown["job"], shown["queue"], shown["task"], shown["state"]) == (broken.id, "q", "fetch", "failed")
    assert (shown["args"], shown["attempt"], shown["crashes"]) == ("0", "1", "0")
    assert {"enqueued", "started", "ended", "waited", "ran", "worker"} <= set(shown)
    assert "\nerror: OSError: no such host\nTraceback (most recent call last):\n" in answer.out
    assert "raise OSError(message)" in answer.out
    assert answer.code == 0


async def test_a_failed_job_says_why_it_was_given_up(cli: Cli, queue: Queue) -> None:
    """The first question is whether to mend the task, its Retry or the caller."""

    @queue.task(retry=Retry(no_retry_on=KeyError))
    async def look(key: str) -> NoReturn:
        raise KeyError(key)

    used_up, refused = (await failed_jobs(queue, 1))[0], await look.enqueue("k")
    async with Worker(queue):
        await ended(refused)

    assert "because   it has used up its attempts\n" in (await cli("job", used_up.id)).out
    assert "because   its Retry does not repeat this\n" in (await cli("job", refused.id)).out
    assert (await cli("job", refused.id, "--json")).document["job"]["failure"] == "not_retried"


async def test_a_running_job_is_shown_with_the_process_that_has_it(cli: Cli, queue: Queue) -> None:
    """To look at a stuck job one needs host and pid, not an internal id."""
    async with Endless(queue) as job:
        answer, document = await cli("job", job.id), (await cli("job", job.id, "--json")).document

    assert f"worker    {socket.gethostname()}:{os.getpid()} (" in answer.out
    assert "runs for" in answer.out
    assert set(document) == {"now", "job", "runs_on"}
    assert document["runs_on"] == f"{socket.gethostname()}:{os.getpid()}"
    assert document["job"]["ran_s"] is None


async def test_a_completed_job_says_why_its_arguments_are_not_shown(cli: Cli, queue: Queue) -> None:
    """Else people look for a bug of theirs."""
    job = await completed_job(queue)

    out = (await cli("job", job.id)).out

    assert "args      gone, the job has completed" in out
    assert "result    2 bytes" in out


async def test_a_limited_job_says_how_often_and_by_what(cli: Cli, queue: Queue) -> None:
    """Else nobody sees why it is always scheduled and never fails."""

    @queue.task
    async def push() -> None:
        raise RateLimited(600, "crm")

    job = await push.enqueue()
    async with Worker(queue):

        async def limited() -> bool:
            return (await job.info()).limited == 1

        await until(limited)
    answer = await cli("job", job.id)
    assert re.search(r"limited +1 time, the last by crm\n", answer.out)
    assert re.search(r"state +scheduled\n", answer.out)
    await job.cancel()


@pytest.mark.parametrize("kind", [Signing, Encryption])
async def test_operators_need_no_keys_to_look_after_sealed_jobs(
    cli: Cli, server: Server, kind: type[Signing | Encryption], monkeypatch: pytest.MonkeyPatch
) -> None:
    """State and id are what they act on; what they cannot read is said to be so, and is there with a key."""
    ring = f"k1:{base64.b64encode(bytes(32)).decode()}"
    async with Queue("q", url=server.url, settings=Settings(seal=kind(ring))) as queue:
        job = await queue.enqueue("mail", "Zoë")

        shown, listed = [(await cli(*command)).out for command in (["job", job.id], ["jobs"])]
        row = (await cli("job", job.id, "--json")).document["job"]
        monkeypatch.setenv(kind.variable, ring)
        with_key = (await cli("job", job.id)).out
        monkeypatch.delenv(kind.variable)
        assert (await cli("cancel", job.id)).code == 0

    secret = kind is Encryption
    assert "state     queued" in shown
    assert ("args      encrypted, cannot be opened here" if secret else 'payload   signed\nargs      "Zoë"') in shown
    assert f'payload   {kind.word}\nargs      "Zoë"' in with_key
    assert re.search(rf"{job.id} +q +mail +queued +{kind.word} ", listed)
    assert (row["payload"], row["args"]) == (kind.word, None if secret else ["Zoë"])


async def test_arguments_are_shown_as_they_were_passed(cli: Cli, queue: Queue) -> None:
    """They are what one needs to repeat the call by hand."""
    job = await queue.enqueue("mail", 7, "Zoë", subject=None)

    assert 'args      7, "Zoë"\nkwargs    subject=null\n' in (await cli("job", job.id)).out


async def test_an_unknown_job_is_looked_for_on_all_queues(cli: Cli, queue: Queue, other: Queue) -> None:
    """The answer must rule out the wrong server and the wrong queue."""
    await queue.enqueue("later")
    await other.enqueue("later")

    for more in ([], ["--json"]):
        answer = await cli("job", "nope", *more)
        assert answer.code == 1
        assert answer.out == ""
        assert answer.err.startswith("aqueue: There is no job nope on any queue at unix://")
        assert "(other, q)" in answer.err


async def test_a_damaged_record_is_named_and_can_be_deleted(cli: Cli, queue: Queue, raw: redis.Redis) -> None:
    """The message says `aqueue delete ID`, so that must work."""
    job = await queue.enqueue("later")
    raw.hset((await queue.store()).keys.job(job.id), "enqueued_ms", "yesterday")

    shown = await cli("job", job.id)
    assert (shown.code, shown.out) == (2, "")
    assert f"`aqueue delete {job.id}`" in shown.err

    assert (await cli("delete", job.id)).code == 0
    assert (await cli("job", job.id)).code == 1


async def test_control_characters_of_strangers_do_not_reach_the_terminal(cli: Cli, queue: Queue) -> None:
    """An argument or an error could else rewrite what an operator sees."""
    (broken,) = await failed_jobs(queue, 1, "\x1b[2J\rfine")

    for command in (("jobs",), ("job", broken.id)):
        out = (await cli(*command)).out
        assert "\x1b" not in out
        assert "\r" not in out
        assert r"\x1b[2J\rfine" in out


def test_plain_text_stays_as_it_is() -> None:
    """Letters of any language are no control characters."""
    assert plain("Zoë\t☕\nok") == "Zoë\t☕\nok"


# retry


async def test_retry_queues_failed_jobs_again(cli: Cli, queue: Queue) -> None:
    """After the cause is mended, this is the next command."""
    jobs = await failed_jobs(queue, 3)

    answer = await cli("retry", jobs[0].id, jobs[2].id)

    assert answer.code == 0
    assert answer.out == f"{jobs[0].id} on q: queued again\n{jobs[2].id} on q: queued again\n"
    assert [await job.status() for job in jobs] == ["queued", "failed", "queued"]


async def test_retry_says_of_each_job_why_not(cli: Cli, queue: Queue) -> None:
    """One job in the wrong state must not stop the others, nor be passed over in silence."""
    (broken,) = await failed_jobs(queue, 1)
    done = await completed_job(queue)
    waiting = await queue.enqueue("later")

    answer = await cli("retry", done.id, waiting.id, "nope", broken.id)

    assert answer.code == 1
    assert f"{done.id} on q: has completed, so its arguments are gone" in answer.out
    assert f"{waiting.id} on q: has not ended yet" in answer.out
    assert f"{broken.id} on q: queued again" in answer.out
    assert "There is no job nope" in answer.err


async def test_retry_as_json_has_one_word_per_job(cli: Cli, queue: Queue) -> None:
    """The words are those of the store, for scripts to compare."""
    (broken,) = await failed_jobs(queue, 1)
    done = await completed_job(queue)

    answer = await cli("retry", "--json", broken.id, broken.id, done.id, "nope")

    assert answer.code == 1
    assert answer.document == {
        "jobs": [
            {"id": broken.id, "queue": "q", "done": "queued"},
            {"id": done.id, "queue": "q", "done": "gone"},
            {"id": "nope", "queue": None, "done": "missing"},
        ]
    }


async def test_retry_failed_takes_all_queues_or_the_chosen_ones(cli: Cli, queue: Queue, other: Queue) -> None:
    """After an outage nobody types ids."""
    await failed_jobs(queue, 3)
    await failed_jobs(other, 2)

    assert (await cli("retry", "--failed", "other", "--json")).document == {
        "queues": [{"queue": "other", "retried": 2, "skipped": 0}],
        "delay_s": 0,
    }
    answer = await cli("retry", "--failed")

    assert answer.code == 0
    assert answer.out == "other: 0 failed jobs queued again\nq: 3 failed jobs queued again\n"
    assert (await queue.stats()).failed == 0


async def test_retry_failed_runs_each_job_once_although_it_fails_again(cli: Cli, queue: Queue) -> None:
    """Otherwise a job that fails at once would be queued again for ever."""
    jobs = await failed_jobs(queue, 20)
    async with Worker(queue):
        (row,) = (await cli("retry", "--failed", "--json")).document["queues"]
        for job in jobs:
            await ended(job)

    assert row == {"queue": "q", "retried": 20, "skipped": 0}
    assert (await queue.stats()).counters["rerun"] == 20


async def test_retry_failed_starts_with_what_failed_first(cli: Cli, queue: Queue) -> None:
    """A queue is first in, first out, also the second time."""
    jobs = [job for _ in range(3) for job in await failed_jobs(queue, 1)]

    await cli("retry", "--failed")

    assert [info.id for info in await queue.jobs("queued")] == [job.id for job in jobs]


async def test_retry_of_nothing_is_refused(cli: Cli) -> None:
    """To run everything again must be said."""
    answer = await cli("retry")
    assert (answer.code, answer.out) == (2, "")
    assert "--failed" in answer.err


# cancel and delete


async def test_cancel_says_what_it_did_for_each(cli: Cli, queue: Queue) -> None:
    """Waiting, running and ended jobs are cancelled in different ways."""
    done = await completed_job(queue)
    async with Endless(queue) as long:
        await queue.pause()
        waiting = await queue.enqueue("later")

        answer = await cli("cancel", waiting.id, long.id, done.id, "nope")

        assert await ended(long) == JobState.CANCELLED
    assert answer.code == 1
    assert answer.out.splitlines() == [
        f"{waiting.id} on q: cancelled, it will not start",
        f"{long.id} on q: is running, its worker has been told to cancel it",
        f"{done.id} on q: had ended already, nothing changed",
    ]
    assert "There is no job nope" in answer.err
    assert await waiting.status() == JobState.CANCELLED


async def test_cancel_as_json_succeeds_when_all_could_be_cancelled(cli: Cli, queue: Queue) -> None:
    """A script needs the exit code first, the words second."""
    job = await queue.enqueue("later")

    answer = await cli("cancel", job.id, "--json")

    assert answer.code == 0
    assert answer.document == {"jobs": [{"id": job.id, "queue": "q", "done": "cancelled"}]}


async def test_delete_removes_all_but_running_jobs(cli: Cli, queue: Queue) -> None:
    """A job that runs would come back as a ghost."""
    (broken,) = await failed_jobs(queue, 1)
    async with Endless(queue) as long:
        answer = await cli("delete", broken.id, long.id)

    assert answer.code == 1
    assert answer.out == f"{broken.id} on q: deleted\n{long.id} on q: is running; cancel it first\n"
    assert (await cli("delete", broken.id, "--json")).document == {
        "jobs": [{"id": broken.id, "queue": None, "done": "missing"}]
    }


# pause, resume, purge


async def test_pause_and_resume_say_whether_that_is_a_change(cli: Cli, queue: Queue, other: Queue) -> None:
    """In an incident two people often do the same thing."""
    await queue.enqueue("later")
    await other.enqueue("later")

    assert (await cli("pause", "q")).out == "q: paused, what runs goes on\n"
    assert (await queue.stats()).paused
    assert (await cli("pause", "q", "other", "--json")).document == {
        "queues": [
            {"queue": "q", "task": None, "paused": True, "changed": False},
            {"queue": "other", "task": None, "paused": True, "changed": True},
        ]
    }
    assert (await cli("pause", "q")).out == "q: was paused already\n"
    assert (await cli("resume", "q", "other")).out == "q: resumed\nother: resumed\n"
    assert not (await queue.stats()).paused
    assert (await cli("resume", "q")).out == "q: was not paused\n"
    assert (await cli("resume", "q", "--json")).document == {
        "queues": [{"queue": "q", "task": None, "paused": False, "changed": False}]
    }


async def test_one_task_is_paused_and_seen_everywhere(cli: Cli, queue: Queue) -> None:
    """Whoever looks next must see why its jobs do not start, and how to let them."""
    await queue.enqueue("mail")
    await queue.enqueue("other")

    assert (await cli("pause", "q", "--task", "mail")).out == "q: task mail paused, what runs goes on\n"
    assert (await cli("pause", "q", "--task", "mail")).out == "q: task mail was paused already\n"
    async with Endless(queue):
        await until(lambda: _has_shelved(queue, 1))
        _, shown, *_ = (await cli("stats")).out.splitlines()
        (row,) = (await cli("stats", "--json")).document["queues"]
        doctor = (await cli("doctor", "q")).out
    assert shown.split()[:3] == ["q", "1", "(1"]
    assert "mail" in shown.split()
    assert (row["paused"], row["shelved"], row["paused_tasks"]) == (False, 1, {"mail": 1})
    assert "task mail paused for " in doctor
    assert "`aqueue resume q --task mail`" in doctor
    assert (await cli("resume", "q", "--task", "mail", "--json")).document == {
        "queues": [{"queue": "q", "task": "mail", "paused": False, "changed": True}]
    }
    assert (await cli("resume", "q", "--task", "mail")).out == "q: task mail was not paused\n"
    assert (await cli("pause", "q", "--task", "two words")).code == 2


async def _has_shelved(queue: Queue, count: int) -> bool:
    return (await queue.stats()).shelved == count


async def test_purge_only_counts_until_it_is_told_yes(cli: Cli, queue: Queue) -> None:
    """There is no way back."""
    await queue.enqueue("later")
    await queue.remote("later").options(delay=60).enqueue()

    text, document = await cli("purge", "q"), await cli("purge", "q", "--json")

    assert text.code == document.code == 1
    assert text.out == "q: 2 waiting jobs would be deleted\n"
    assert "--yes" in text.err
    assert document.document == {"queues": [{"queue": "q", "what": "waiting", "found": 2, "deleted": 0}]}
    stats = await queue.stats()
    assert (stats.queued, stats.scheduled) == (1, 1)


async def test_purge_deletes_the_waiting_or_the_failed(cli: Cli, queue: Queue) -> None:
    """Each must leave the other alone."""
    await failed_jobs(queue, 2)
    await queue.enqueue("later")

    waiting = await cli("purge", "q", "--yes")
    assert (waiting.code, waiting.out) == (0, "q: 1 waiting job deleted\n")
    assert (await queue.stats()).failed == 2

    assert (await cli("purge", "q", "--failed")).out == "q: 2 failed jobs would be deleted\n"
    failed = await cli("purge", "q", "--failed", "--yes", "--json")
    assert failed.code == 0
    assert failed.document == {"queues": [{"queue": "q", "what": "failed", "found": 2, "deleted": 2}]}
    assert (await queue.stats()).failed == 0


# refusals


@pytest.mark.parametrize(
    "command",
    ["stats nix", "jobs nix", "retry --failed nix", "pause q nix", "resume nix", "purge nix --yes", "stats nix --json"],
)
async def test_an_unknown_queue_is_refused_with_the_known_names(cli: Cli, queue: Queue, command: str) -> None:
    """A slip of the pen must neither create a queue nor pass for an empty one."""
    await queue.enqueue("later")

    answer = await cli(*command.split())

    assert (answer.code, answer.out) == (1, "")
    assert re.fullmatch(r"aqueue: There is no queue 'nix' at unix://\S+; it has q\.\n", answer.err)
    assert not (await queue.stats()).paused


async def test_a_refusal_does_not_list_queues_without_end(cli: Cli, server: Server, raw: redis.Redis) -> None:
    """One queue per customer is a common layout."""
    raw.sadd("aqueue:queues", *(f"customer-{number}" for number in range(1000)))

    assert (await cli("stats", "nix")).err.endswith("customer-115 and 980 more.\n")


@pytest.mark.parametrize("command", [["stats"], ["job", "x"], ["retry", "--failed", "--json"], ["purge", "q", "--yes"]])
def test_a_server_that_is_away_is_one_line_and_exit_code_2(monkeypatch: pytest.MonkeyPatch, command: list[str]) -> None:
    """Monitoring tells "could not ask" from "the answer is no" by the code, and no log may show the password."""
    monkeypatch.setattr(connection, "PATIENCE_SECONDS", 0.05)

    for answer in (
        invoke(*command, "--url", "redis://me:geheim@127.0.0.1:1/0"),
        invoke(*command, url="redis://me:geheim@127.0.0.1:1/0"),
    ):
        assert (answer.code, answer.out) == (2, "")
        assert answer.err.startswith("aqueue: Redis at redis://me:***@127.0.0.1:1/0 cannot be reached")
        assert answer.err.count("\n") == 1
        assert "geheim" not in answer.err


def test_an_address_that_cannot_be_one_is_refused_without_its_password() -> None:
    """A mistyped URL is often printed by the shell's history and by CI."""
    answer = invoke("stats", "--url", "reddis://:geheim@host")
    assert (answer.code, answer.out) == (2, "")
    assert "'reddis://:***@host' is not an address of Redis" in answer.err


@pytest.mark.parametrize("login", ["", ":wrong@"])
async def test_a_server_that_refuses_the_password_is_not_called_unreachable(server: Server, login: str) -> None:
    """One looks at the network for an hour, else."""
    with server.client() as client:
        client.config_set("requirepass", "geheim")
        try:
            answer = await asyncio.to_thread(invoke, "stats", "--url", server.url.replace("unix://", f"unix://{login}"))
        finally:
            client.config_set("requirepass", "")
    assert (answer.code, answer.out) == (2, "")
    assert "refused the credentials" in answer.err
    assert "wrong@" not in answer.err


async def test_the_option_wins_over_the_environment(server: Server) -> None:
    """Whoever types an address means it."""
    answer = await asyncio.to_thread(invoke, "stats", "--json", "--url", server.url, url="redis://127.0.0.1:1")
    assert answer.document["url"] == server.url


async def test_stats_show_the_address_without_its_password(server: Server) -> None:
    """Its output ends up in tickets."""
    with server.client() as client:
        client.config_set("requirepass", "geheim")
        try:
            answer = await asyncio.to_thread(invoke, "stats", "--url", server.url.replace("unix://", "unix://:geheim@"))
        finally:
            client.config_set("requirepass", "")
    assert answer.code == 0, answer.err
    assert "unix://:***@/" in answer.out
    assert "geheim" not in answer.out


# help, and the command as a process


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_fits_a_screen_and_ends_in_examples(command: str) -> None:
    """People copy examples; what scrolls away is not read."""
    answer = invoke(*command.split(), "--help")

    lines = answer.out.splitlines()
    assert answer.code == 0
    assert len(lines) <= SCREEN_LINES + (0 if command else 3)
    assert max(map(len, lines)) <= SCREEN_COLUMNS
    assert "examples:" in answer.out
    assert "..." not in re.sub(r"Usage.*|\[QUEUE\]\.\.\.", "", answer.out)


@pytest.mark.parametrize("command", ["", *COMMANDS])
async def test_the_examples_of_the_help_work(cli: Cli, server: Server, command: str) -> None:
    """An example that is out of date is worse than none."""
    for name in ("default", "high"):
        async with Queue(name, url=server.url) as queue:
            await queue.pause()
            if name == "default":
                await queue.schedule(queue.remote("work").call(), id="nightly", cron="0 3 * * *")
    shown = (await cli(*command.split(), "--help")).out.partition("examples:")[2]
    examples = re.findall(r"^ +aqueue ((?:\S+ ?)+)", shown, re.MULTILINE)

    assert examples
    for example in examples:
        answer = await cli(*shlex.split(example.partition("|")[0]))
        assert answer.code == (1 if "06g3k" in example or ("purge" in example and "--yes" not in example) else 0)


def run(*args: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "aqueue", *args],
        cwd=cwd,
        env={**{name: value for name, value in os.environ.items() if not name.startswith("AQUEUE_")}, **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


async def test_python_m_aqueue_is_the_same_command(server: Server, queue: Queue, tmp_path: Path) -> None:
    """Where scripts are not on the path, this always works; and it must not leak a connection or a warning."""
    job = await queue.enqueue("later", 1)

    done = await asyncio.to_thread(run, "job", job.id, "--json", cwd=tmp_path, AQUEUE_URL=server.url)

    assert done.stderr == ""
    assert done.returncode == 0
    assert json.loads(done.stdout)["job"]["id"] == job.id


def test_without_an_address_the_embedded_server_is_asked(tmp_path: Path) -> None:
    """As the README's first five minutes have it."""
    done = run("stats", cwd=tmp_path, AQUEUE_EMBEDDED_LINGER="2")

    assert done.returncode == 0
    assert done.stdout == f"No queue was ever used at embedded://{tmp_path}/.aqueue.\n"
    assert "development server" in done.stderr


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path: Path) -> None:
    """`aqueue jobs | head` must not end in a traceback."""
    done = subprocess.run(
        ["sh", "-c", f"{shlex.quote(sys.executable)} -m aqueue --help | head -1"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stderr == ""


def test_the_script_shows_its_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The entry point of the distribution is `main`."""
    monkeypatch.setattr(sys, "argv", ["aqueue", "--version"])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == 0
    assert capsys.readouterr().out.startswith("aqueue 0.")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0ms"), (0, "0ms"), (0.0034, "3ms"), (0.9994, "999ms"), (0.9996, "1.0s"), (4.25, "4.2s"),
        (59.94, "59.9s"), (59.96, "1m00s"), (192, "3m12s"), (3599.6, "1h00m"), (3725, "1h02m"),
        (86_399.7, "1d00h"), (7 * 86_400 + 4 * 3600, "7d04h"),
    ],
)  # fmt: skip
def test_durations_read_as_people_say_them(seconds: float, text: str) -> None:
    """Nobody counts the digits of 604800."""
    assert duration(seconds) == text


# schedules


async def test_schedules_are_listed_and_steered(cli: Cli, queue: Queue, other: Queue) -> None:
    """Wherever they are; the first queue that has one of a name is not taken for the one that was meant."""
    assert "call queue.schedule" in (await cli("schedules")).out
    await queue.schedule(queue.remote("work").call("a"), id="nightly", cron="0 3 * * *", tz="Europe/Paris", repeat=5)
    await other.schedule(other.remote("work").call("b"), id="twice", every=60)

    (row, first) = sorted((await cli("schedules", "--json")).document["schedules"], key=lambda row: str(row["id"]))
    assert (row["id"], row["queue"], row["owner"], row["state"]) == ("nightly", "q", "user", "active")
    assert (row["times"], len(row["next"]), row["jobs"], row["repeat"]) == ("0 3 * * * Europe/Paris", 3, 0, 5)
    assert (first["id"], first["next_at"]) == ("twice", first["next"][0])
    assert (await cli("schedules", "pause", "nightly")).out == "nightly on q: paused, its slots start nothing\n"
    assert (await cli("schedules", "pause", "nightly")).out == "nightly on q: was so already, nothing changed\n"
    text = (await cli("schedules")).out
    assert re.search(r"nightly +q +work +user +0 3 \* \* \* Europe/Paris +paused +-", text)
    (done,) = (await cli("schedules", "run", "nightly", "--json")).document["schedules"]
    assert (done["id"], done["queue"], done["done"]) == ("nightly", "q", "started")
    assert await queue.job(done["job"]).status() == JobState.QUEUED
    assert (await cli("schedules", "resume", "nightly", "twice")).code == 0
    assert (await queue.schedules.get("nightly")).state == "active"
    assert (await cli("schedules", "delete", "twice")).out == "twice on other: deleted\n"
    assert [info.id for info in await other.schedules.list()] == []


async def test_schedules_that_cannot_be_steered(cli: Cli, queue: Queue, other: Queue) -> None:
    """Nothing is done to the others, and the message says what to do."""
    for one in (queue, other):
        await one.schedule(one.remote("work").call(), id="both", every=60)
    await queue.schedule(queue.remote("work").call(), id="nightly", every=60)
    queue.every(60, id="fixed")(queue.task(name="work")(_nothing))
    async with Worker(queue):
        await until(lambda: _has(queue, "fixed"))
    answers = {
        "delete nightly nightyl": (1, "did you mean nightly"),
        "pause both": (2, "on each of other, q; say which one with --queue"),
        "pause nowhere --queue other": (1, "There is no schedule 'nowhere'"),
        "pause both --queue none": (1, "There is no queue 'none'"),
        "delete fixed": (2, "belongs to the code"),
        "run": (2, "Name the schedules to run"),
    }
    for words, (code, complaint) in answers.items():
        answer = await cli("schedules", *words.split())
        assert (answer.code, answer.out) == (code, "")
        assert complaint in answer.err
    assert (await cli("schedules", "delete", "both", "--queue", "other")).out == "both on other: deleted\n"
    assert {info.id for info in await queue.schedules.list()} == {"both", "nightly", "fixed"}
    assert (await cli("schedules", "pause", "fixed")).code == 0


async def _nothing() -> None: ...


async def _has(queue: Queue, schedule_id: str) -> bool:
    return schedule_id in {info.id for info in await queue.schedules.list()}


# prefixes


async def test_each_prefix_is_a_site_of_its_own(cli: Cli, server: Server, raw: redis.Redis) -> None:
    """Applications that share a server neither see nor touch each other's queues, whatever these are called."""
    ours = Queue("q", url=server.url, settings=Settings(prefix="shop"))
    async with Queue("q", url=server.url) as theirs, ours:
        job = await ours.enqueue("work")
        kept = await theirs.enqueue("work")

        asked = (["stats"], ["jobs"], ["job", job.id], ["pause", "q"], ["resume", "q"], ["doctor"], ["cancel", job.id])
        answers = [await cli(*words, "--prefix", "shop", "--json") for words in asked]
        assert [answer.code for answer in answers] == [0, 0, 0, 0, 0, 1, 0]  # a job, and nobody who would run it
        assert [row["id"] for row in answers[1].document["jobs"]] == [job.id]
        assert (await cli("job", kept.id, "--prefix", "shop")).code == 1
        assert (await cli("job", job.id)).code == 1
        for words in (["retry", job.id], ["delete", job.id], ["purge", "q", "--yes"]):
            assert (await cli(*words, "--prefix", "shop")).code == 0
        assert not list(raw.scan_iter("shop:{q}:job:*"))
        assert await kept.status() == JobState.QUEUED


async def test_the_prefix_can_be_set_in_the_environment(
    cli: Cli, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is as much a matter of the deployment as the address, and the application goes by it as well."""
    monkeypatch.setenv("AQUEUE_PREFIX", "shop")
    async with Queue("q", url=server.url) as queue:
        job = await queue.enqueue("work")
    assert (await cli("job", job.id)).code == 0
    assert (await cli("job", job.id, "--prefix", "aqueue")).code == 1
    assert "~shop:{" in (await cli("acl", "worker")).out


async def test_a_prefix_that_is_none_is_refused(cli: Cli) -> None:
    """It would be part of every key."""
    for prefix in ("", "a b", "{"):
        answer = await cli("stats", "--prefix", prefix)
        assert answer.code == 2
        assert "prefix must" in answer.err
