"""What happens to callers and workers when a connection is slow, is cut, or says nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from servers import Server

from aqueue import Queue, Worker
from faults.proxy import Door, Fault, Lie, Proxy, Request


@pytest.fixture
async def proxy(server: Server) -> AsyncIterator[Proxy]:
    async with Proxy(server.socket) as proxy:
        yield proxy


@pytest.fixture
async def door(proxy: Proxy) -> Door:
    return await proxy.door("worker")


async def test_a_resume_that_comes_before_the_worker_listens_is_felt_at_once(
    server: Server, proxy: Proxy, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its first turn and its subscription nobody could tell it; it has to look once more when it listens."""
    monkeypatch.setattr("aqueue.worker.lane.PAUSED_LOOK_SECONDS", 600)  # the net beneath, which is not to be needed
    proxy.decide = _delay_subscriptions
    async with Queue("q", url=server.url) as queue, Queue("q", url=door.url) as working:

        @working.task
        async def work() -> str:
            return "done"

        await queue.pause()
        job = await queue.enqueue("work")
        async with Worker(working):
            while "SSUBSCRIBE" not in {request.name for request in proxy.requests}:
                await (await queue.store()).plain("PING")
            await queue.resume()
            assert await job.result(timeout=10) == "done"
        await working.close()


def _delay_subscriptions(request: Request) -> Lie | None:
    return Fault.DELAY if request.name == "SSUBSCRIBE" else None
