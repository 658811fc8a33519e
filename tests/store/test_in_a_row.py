"""Commands in a row over a connection aside: followed to another server, sent anew, and in nobody's way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.exceptions import ResponseError
from scripted import Command, ScriptedServer, bulk

from aqueue.errors import StoreFull, StoreUnavailable
from aqueue.store import connection
from aqueue.store.address import route_of_url
from aqueue.store.connection import Links

ROW = (("FIRST", "k"), ("SECOND", "k"))


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    async with ScriptedServer(lambda command: bulk(command[0])) as server:
        yield server


@pytest.fixture
async def links(server: ScriptedServer) -> AsyncIterator[Links]:
    links = Links(route_of_url(server.url))
    yield links
    await links.close()


def once(refusal: bytes, word: bytes = b"FIRST") -> dict[bytes, list[bytes]]:
    return {word: [b"-%s\r\n" % refusal]}


def scripted(server: ScriptedServer, refusals: dict[bytes, list[bytes]]) -> None:
    """Answer with the command's name, after the refusals that are left for it."""

    def answer(command: Command) -> bytes:
        left = refusals.get(command[0])
        return left.pop(0) if left else bulk(command[0])

    server.answer = answer


@pytest.mark.parametrize("refusal", [b"MOVED 1 host:1", b"READONLY You can't write", b"CLUSTERDOWN down"])
async def test_a_row_for_another_server_goes_to_a_new_connection(
    server: ScriptedServer, links: Links, refusal: bytes
) -> None:
    """A failover is what confirmations are for."""
    scripted(server, once(refusal))
    assert await links.run_in_a_row("k", *ROW, patience=0) == [b"FIRST", b"SECOND"]
    assert server.connections == 2


async def test_a_refusal_after_the_first_is_an_answer(server: ScriptedServer, links: Links) -> None:
    """The first has been done; what the others refuse is for the caller to judge."""
    scripted(server, once(b"ERR unknown command", b"SECOND"))
    first, second = await links.run_in_a_row("k", *ROW, patience=0)
    assert first == b"FIRST"
    assert isinstance(second, ResponseError)
    assert len(server.heard) == 2


async def test_a_full_server_is_told(server: ScriptedServer, links: Links) -> None:
    """As without a row."""
    scripted(server, once(b"OOM command not allowed"))
    with pytest.raises(StoreFull):
        await links.run_in_a_row("k", *ROW, patience=0)


async def test_a_row_that_was_cut_off_is_sent_again(server: ScriptedServer, links: Links) -> None:
    """Nobody knows how far it got, and all of it may run twice."""
    cut = [True]

    def answer(command: Command) -> bytes | None:
        if command[0] == b"SECOND" and cut:
            cut.clear()
            raise OSError
        return bulk(command[0])

    server.answer = answer
    assert await links.run_in_a_row("k", *ROW, patience=0) == [b"FIRST", b"SECOND"]
    assert [command[0] for command in server.heard] == [b"FIRST", b"SECOND"] * 2


async def test_a_server_that_is_away_is_told(
    server: ScriptedServer, links: Links, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within the same time as everywhere."""
    monkeypatch.setattr(connection, "PATIENCE_SECONDS", 0.05)
    server.path.unlink()
    with pytest.raises(StoreUnavailable):
        await links.run_in_a_row("k", *ROW, patience=0)


async def test_other_calls_do_not_wait_for_a_row(server: ScriptedServer, links: Links) -> None:
    """It may be held up for seconds."""
    held = asyncio.Event()

    def answer(command: Command) -> bytes | None:
        if command[0] != b"SECOND":
            return bulk(command[0])
        held.set()
        return None

    server.answer = answer
    row = asyncio.create_task(links.run_in_a_row("k", *ROW, patience=60))
    await held.wait()
    assert await links.send("k", ("GET", "k")) == b"GET"
    assert not row.done()
    await links.close()
    row.cancel()
    await asyncio.gather(row, return_exceptions=True)
