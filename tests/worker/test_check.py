"""`--check`: the answer for a container's probe, from Redis alone."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from servers import Server, binaries

from aqueue import ConfigurationError, Queue, Settings, StoreUnavailable, Worker
from aqueue.job import WorkerId
from aqueue.store import connection
from aqueue.store.codec import WorkerInfo, encode_worker, worker_host
from aqueue.worker.check import check

ELSEWHERE = encode_worker(WorkerInfo("elsewhere", 7, 10, "1"))


@pytest.fixture
def engine() -> str:
    """One server will do: the script beneath is tested on all of them."""
    return str(next(iter(binaries())))


@pytest.fixture
async def elsewhere(server: Server) -> AsyncIterator[Queue]:
    """The queue `q` with a live worker on another host."""
    async with Queue("q", url=server.url, settings=Settings(lease=600)) as queue:  # nobody renews it
        store = await queue.store()
        await store.register()
        await store.extend(WorkerId("other"), 0, [], ELSEWHERE)
        yield queue
        await store.retire(WorkerId("other"))


async def test_a_worker_anywhere_is_enough_unless_this_host_is_meant(elsewhere: Queue, server: Server) -> None:
    """A probe that is content with somebody else's worker never restarts its own."""
    assert await check(["q"], server.url, here=False) == 0
    assert await check([], server.url, here=False) == 0
    assert await check(["q"], server.url, here=True) == 1
    assert await check([], server.url, here=True) == 1


async def test_a_worker_of_this_host_is_found(elsewhere: Queue, server: Server) -> None:
    """By the name under which it has made itself known."""
    async with Worker(elsewhere):
        assert await check(["q"], server.url, here=True) == 0
        assert await check([], server.url, here=True) == 0
        assert await check(["q", "other"], server.url, here=True) == 1


async def test_without_names_one_served_queue_is_enough_for_this_host(
    elsewhere: Queue, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """The server may have queues that are none of this host's business."""
    async with Queue("a", url=server.url) as other, Queue("z", url=server.url) as last:
        for one in (other, last):
            await one.pause()
        async with Worker(elsewhere):
            assert await check([], server.url, here=True) == 0
            assert await check([], server.url, here=False) == 1
        assert await check([], server.url, here=True) == 1
    assert f"no live worker of this host ({socket.gethostname()}) serves any queue" in caplog.text


async def test_a_server_without_queues_has_no_worker_of_this_host(server: Server) -> None:
    """A worker makes its queues known when it starts, so there is none."""
    assert await check([], server.url, here=True) == 1
    assert await check([], server.url, here=False) == 0


async def test_only_the_queues_of_one_prefix_are_looked_at(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another application's worker is no answer."""
    async with Queue("q", url=server.url, settings=Settings(prefix="shop")) as queue, Worker(queue):
        assert await check(["q"], server.url, here=False, prefix="shop") == 0
        assert await check([], server.url, here=True, prefix="shop") == 0
        assert await check(["q"], server.url, here=False) == 1
        monkeypatch.setenv("AQUEUE_PREFIX", "shop")
        assert await check(["q"], server.url, here=False) == 0
        assert await check(["q"], server.url, here=False, prefix="aqueue") == 1
    with pytest.raises(ConfigurationError, match="prefix must not contain"):
        await check(["q"], server.url, here=False, prefix="a b")


async def test_what_said_nothing_of_itself_is_of_no_host(elsewhere: Queue, server: Server) -> None:
    """Between its first claim and its first beat a worker has said nothing."""
    assert worker_host("") == worker_host("{") == worker_host("[]") == ""


async def test_a_name_that_is_none_and_a_server_that_is_away_are_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 2 in the command, for they are no answer."""
    monkeypatch.setattr(connection, "PATIENCE_SECONDS", 0.05)
    with pytest.raises(ConfigurationError, match="takes names of queues"):
        await check(["tasks:queue"], "redis://127.0.0.1:1", here=True)
    with pytest.raises(StoreUnavailable):
        await check(["q"], "redis://127.0.0.1:1", here=True)


def test_the_command_answers_without_the_application(server: Server, tmp_path: Path) -> None:
    """A probe runs every few seconds; the application may take long to import, or do things when it is."""
    (tmp_path / "tasks.py").write_text("raise SystemExit('imported')")
    environment = {**os.environ, "AQUEUE_URL": server.url}
    codes = [
        subprocess.run(
            [sys.executable, "-W", "error", "-m", "aqueue.worker", "--check", *arguments],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=30, check=False,
        ).returncode
        for arguments in (["tasks"], ["tasks", "--here"], [])
    ]  # fmt: skip
    assert codes == [1, 1, 0]
