"""A deploy that is half done: two generations of workers on one queue, and the jobs of three of producers."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import redis
from servers import Server

from aqueue import Context, Job, JobFailed, Queue, Retry, Settings, Worker
from faults.history import History, complaints, remains

pytestmark = pytest.mark.timeout(240)

KINDS: dict[str, tuple[Callable[[int], bytes], str]] = {
    "as ever": (lambda n: _envelope(1, "work", n), ""),
    "of a newer minor version": (lambda n: _envelope(1, "work", n, {"priority": 5}, "appended", {"more": 1}), ""),
    "of a task that only the old know": (lambda n: _envelope(1, "of_yesterday", n), ""),
    "of a task that only the new know": (lambda n: _envelope(1, "of_tomorrow", n), ""),
    "of a task that nobody knows": (lambda n: _envelope(1, "of_nobody", n), "UnknownTask"),
    "of a newer version": (lambda n: _envelope(2, "work", n), "EnvelopeTooNew"),
    "of no version": (lambda n: _envelope(0, "work", n), "BadArguments"),
    "with other arguments": (lambda n: _envelope(1, "work", f"text {n}"), "BadArguments"),
    "damaged": (lambda n: b"\xff" * n, "BadArguments"),
}
"""What a producer may have left in the queue, and the error that it leads to, if any."""


WINDOW = 3600
WAITED_FOR = ("UnknownTask", "EnvelopeTooNew")
"""Errors of what somebody may know yet."""


def _envelope(version: int, task: str, argument: object, headers: object = None, *more: object) -> bytes:
    return json.dumps([version, task, [argument], {}, headers or {}, *more]).encode()


async def _half_a_deploy(
    server: Server,
    raw: redis.Redis,
    patch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    *,
    of_each: int,
) -> None:
    patch.setattr("aqueue.worker.executor.UNKNOWN_TASK_DELAY_SECONDS", 0.05)
    settings = Settings(unknown_task_window=WINDOW, retry=Retry(max_attempts=2, backoff=0.01))
    history, ran = History(asked=of_each * len(KINDS)), Counter[tuple[str, str]]()

    def run(generation: str, kind: str, context: Context) -> None:
        assert context.job is not None
        history.start(context.job.id)
        history.end(context.job.id)
        ran[generation, kind] += 1

    async with (
        Queue("q", url=server.url, settings=settings) as old,
        Queue("q", url=server.url, settings=settings) as new,
    ):
        for generation, queue in (("old", old), ("new", new)):

            @queue.task
            async def work(context: Context, n: int, generation: str = generation) -> int:
                run(generation, "work", context)
                return n

        @old.task
        async def of_yesterday(context: Context, n: int) -> int:
            run("old", "of_yesterday", context)
            return n

        @new.task
        async def of_tomorrow(context: Context, n: int) -> int:
            run("new", "of_tomorrow", context)
            return n

        await old.pause()
        sent: list[tuple[str, int, Job[Any]]] = []
        for n in range(of_each):
            jobs = await old.enqueue_many(old.remote("replaced").call() for _ in KINDS)
            for (kind, (envelope, _)), job in zip(KINDS.items(), jobs, strict=True):
                raw.set(f"aqueue:{{q}}:payload:{job.id}", envelope(n))
                sent.append((kind, n, job))
        history.acknowledged = {job.id for _, _, job in sent}
        with caplog.at_level(logging.WARNING, "aqueue"):
            async with Worker(old), Worker(new):
                await old.resume()
                await _meet_their_ends(raw, sent)
        assert complaints(history, remains(raw, "q")) == []
    print(f"{len(sent)} jobs of {len(KINDS)} kinds; {dict(ran)}")
    assert ran["old", "work"] + ran["new", "work"] == 2 * of_each
    assert (ran["old", "of_yesterday"], ran["new", "of_tomorrow"]) == (of_each, of_each)
    assert set(history.runs("start").values()) == {1}
    warnings = Counter(
        record.getMessage().partition(";")[0] for record in caplog.records if record.levelname == "WARNING"
    )
    assert max(warnings.values()) <= 2, "each worker warns once"
    assert any("newer aqueue" in warning for warning in warnings)


async def _meet_their_ends(raw: redis.Redis, sent: list[tuple[str, int, Job[Any]]]) -> None:
    """Wait for all jobs, last for those that end when the window has passed, and let it pass by then."""
    for kind, n, job in sorted(sent, key=lambda one: KINDS[one[0]][1] in WAITED_FOR):
        error = KINDS[kind][1]
        if error in WAITED_FOR:  # by now whoever knows one has run it
            raw.hset(f"aqueue:{{q}}:job:{job.id}", "unknown_ms", 1)
        if not error:
            assert await job.result(timeout=60) == n
            continue
        with pytest.raises(JobFailed) as caught:
            await job.result(timeout=60)
        assert caught.value.exception_type == error
        assert (await job.info()).crashes == 0


async def test_two_generations_share_a_queue(
    server: Server, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What anybody can run is run, once; the rest fails by itself with an error that says why."""
    await _half_a_deploy(server, raw, monkeypatch, caplog, of_each=10)


@pytest.mark.chaos
async def test_two_generations_share_a_long_queue(
    server: Server, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The long form."""
    await _half_a_deploy(server, raw, monkeypatch, caplog, of_each=500)
