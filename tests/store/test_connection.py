"""What a failed call means: try again, ask elsewhere, or say so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis import exceptions
from redis.exceptions import ResponseError
from scripted import Command, ScriptedServer, bulk

from aqueue.errors import ConfigurationError, StoreError, StoreFull, StoreUnavailable
from aqueue.store import connection
from aqueue.store.address import route_of_url
from aqueue.store.connection import Links, Server, refusal_code
from aqueue.store.scripts import load


class Refusing:
    """Refuses the first calls with these lines, then answers."""

    def __init__(self, *refusals: bytes) -> None:
        self.refusals = list(refusals)

    def __call__(self, command: Command) -> bytes:
        return b"-" + self.refusals.pop(0) + b"\r\n" if self.refusals else bulk(command[0])


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    async with ScriptedServer() as server:
        yield server


@pytest.fixture
async def links(server: ScriptedServer) -> AsyncIterator[Links]:
    links = Links(route_of_url(server.url))
    yield links
    await links.close()


@pytest.mark.parametrize(
    "refusal",
    [b"MOVED 1 host:1", b"READONLY You can't write", b"MASTERDOWN Link", b"CLUSTERDOWN down"],
)
async def test_a_call_to_the_wrong_server_goes_to_a_new_connection(
    server: ScriptedServer, links: Links, refusal: bytes
) -> None:
    """After a failover the old primary answers, and only a new connection finds the new one."""
    server.answer = Refusing(refusal)
    assert await links.send("k", ("GET", "k")) == b"GET"
    assert server.connections == 2


@pytest.mark.parametrize(
    "refusal", [b"TRYAGAIN x", b"ASK 1 host:1", b"BUSY script", b"LOADING data", b"NOREPLICAS x", b"MISCONF disk"]
)
async def test_a_busy_server_is_asked_again(server: ScriptedServer, links: Links, refusal: bytes) -> None:
    """None of them has executed anything, and all of them pass."""
    server.answer = Refusing(refusal, refusal)
    assert await links.send("k", ("GET", "k")) == b"GET"
    assert len(server.heard) == 3


async def test_a_slot_on_the_move_costs_no_connection(server: ScriptedServer, links: Links) -> None:
    """Other queues share it, and a move may last."""
    server.answer = Refusing(*[b"ASK 1 host:1"] * 3)
    assert await links.send("k", ("GET", "k")) == b"GET"
    assert server.connections == 1


@pytest.mark.parametrize(
    ("refusal", "error", "word"),
    [
        (b"OOM command not allowed", StoreFull, "maxmemory"),
        (b"NOPERM no permission", StoreError, "permit"),
        (b"WRONGTYPE Operation", StoreError, "WRONGTYPE"),
        (b"ERR unknown command", StoreError, "unknown command"),
    ],
)
async def test_a_refusal_that_stays_is_said_at_once(
    server: ScriptedServer, links: Links, refusal: bytes, error: type[StoreError], word: str
) -> None:
    """To ask again would change nothing."""
    server.answer = Refusing(*[refusal] * 50)
    with pytest.raises(error, match=word) as caught:
        await links.send("k", ("GET", "k"))
    assert not isinstance(caught.value, StoreUnavailable)
    assert len(server.heard) == 1


async def test_a_script_that_the_server_does_not_know_is_sent_whole(server: ScriptedServer, links: Links) -> None:
    """After a restart or a SCRIPT FLUSH the cache is empty, which is nobody's error."""
    server.answer = Refusing(b"NOSCRIPT No matching script")
    script = load("pause")
    assert await links.run("k", script, script.arguments(["k", "l"], ["p:", 0])) == b"EVAL"
    assert [command[0] for command in server.heard] == [b"EVALSHA", b"EVAL"]
    assert server.heard[1][1] == script.text.encode()
    assert server.heard[0][2:] == server.heard[1][2:]


async def test_a_cut_connection_is_opened_anew_for_the_same_call(server: ScriptedServer, links: Links) -> None:
    """Every script may be sent twice, so a lost reply is no reason to bother the caller."""
    silent = True

    def answer(command: Command) -> bytes | None:
        return None if silent else bulk(command[0])

    server.answer = answer
    call = asyncio.ensure_future(links.send("k", ("GET", "k")))
    async with asyncio.timeout(10):
        while not server.heard:
            await asyncio.sleep(0)
    silent = False
    await server.drop()
    assert await call == b"GET"
    assert server.connections == 2


async def test_a_silent_server_is_unavailable_and_not_asked_twice(
    server: ScriptedServer, links: Links, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has had its time, and may still execute the call."""
    monkeypatch.setattr("aqueue.store.link.Link.call.__kwdefaults__", {"timeout": 0.05})
    server.answer = lambda _: None
    with pytest.raises(StoreUnavailable, match="did not answer"):
        await links.send("k", ("GET", "k"))
    assert len(server.heard) == 1


async def test_patience_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A web request that enqueues must fail while somebody still waits for it."""
    monkeypatch.setattr(connection, "PATIENCE_SECONDS", 0.1)
    links = Links(route_of_url("redis://:secret@127.0.0.1:1"))
    with pytest.raises(StoreUnavailable, match="cannot be reached") as caught:
        await links.send("k", ("GET", "k"))
    assert "secret" not in str(caught.value)
    await links.close()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ResponseError("WRONGTYPE Operation against a key"), "WRONGTYPE"),
        (exceptions.OutOfMemoryError("command not allowed"), "OOM"),
        (exceptions.ReadOnlyError("You can't write"), "READONLY"),
        (exceptions.NoPermissionError("this user"), "NOPERM"),
        (exceptions.TryAgainError("x"), "TRYAGAIN"),
        (exceptions.ClusterDownError("CLUSTERDOWN x"), "CLUSTERDOWN"),
        (exceptions.MasterDownError("x"), "MASTERDOWN"),
        (exceptions.MovedError("1 host:1"), "MOVED"),
        (exceptions.AskError("1 host:1"), "ASK"),
        (ResponseError("UNBLOCKED force unblock"), "UNBLOCKED"),
        (ResponseError(""), ""),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_refusals_are_known_by_their_word(error: ResponseError, code: str) -> None:
    """Some versions of redis-py cut the word off and give a class instead."""
    assert refusal_code(error) == code


async def test_connections_close_with_their_last_user(server: ScriptedServer) -> None:
    """Queues of one URL share; the first to close must not cut the others."""
    shared = Server(lambda: route_of_url(server.url))
    one, two = object(), object()
    for user in (one, two):
        assert await shared.links(user).send("k", ("GET", "k")) == b"k"
    assert server.connections == 1
    await shared.release(one)
    assert await shared.links(two).send("k", ("GET", "k")) == b"k"
    assert server.connections == 1
    await shared.release(two)
    await shared.release(two)
    assert await shared.links(one).send("k", ("GET", "k")) == b"k"
    assert server.connections == 2
    await shared.release(one)


def test_without_a_loop_there_are_no_connections() -> None:
    """The message says what to do instead of what asyncio lacks."""
    with pytest.raises(ConfigurationError, match="async function"):
        Server(lambda: route_of_url("redis://host")).links(object())
