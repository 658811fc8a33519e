"""One shared connection: every reply goes to who asked, or to nobody."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeAlias

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError
from scripted import ScriptedServer, bulk

from aqueue.store.address import route_of_url
from aqueue.store.link import Link, Subscription

CALLS = 200
Connect: TypeAlias = Callable[[ScriptedServer], Awaitable[Link]]


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    links = []

    async def open_link(server: ScriptedServer) -> Link:
        links.append(Link(await route_of_url(server.url).connect("k")))
        return links[-1]

    yield open_link
    for link in links:
        await link.close()


async def heard(server: ScriptedServer, count: int) -> None:
    async with asyncio.timeout(10):
        while len(server.heard) < count:
            await asyncio.sleep(0)


async def test_replies_reach_their_callers_in_order(connect: Connect) -> None:
    """Hundreds of callers share the connection; one that is off by one reads somebody else's job."""
    async with ScriptedServer() as server:
        link = await connect(server)
        replies = await asyncio.gather(*(link.call("ECHO", str(n)) for n in range(CALLS)))
        assert replies == [b"%d" % n for n in range(CALLS)]
        assert server.connections == 1


async def test_commands_in_a_row_are_answered_together_refusals_among_them(connect: Connect) -> None:
    """They leave in one write, and a neighbour's reply is not taken for one of theirs."""

    def answer(command: list[bytes]) -> bytes:
        return b"-ERR no\r\n" if command[-1] == b"2" else bulk(command[-1])

    async with ScriptedServer(answer) as server:
        link = await connect(server)
        alone, row = await asyncio.gather(
            link.call("ECHO", "0"), link.call_in_a_row(("ECHO", "1"), ("ECHO", "2"), timeout=5)
        )
        assert (alone, row[0], str(row[1])) == (b"0", b"1", "no")
        assert isinstance(row[1], ResponseError)


async def test_a_row_fails_as_a_whole_when_the_connection_breaks(connect: Connect) -> None:
    """Nobody can know which of its commands were executed."""
    async with ScriptedServer(lambda _: b"") as server:
        link = await connect(server)
        row = asyncio.create_task(link.call_in_a_row(("ECHO", "1"), ("ECHO", "2"), timeout=5))
        await heard(server, 2)
        await link.close()
        with pytest.raises(RedisConnectionError):
            await row


async def test_a_refusal_is_its_callers_alone(connect: Connect) -> None:
    """An error is a reply like any other, and takes exactly one place."""

    def answer(command: list[bytes]) -> bytes:
        return b"-ERR no\r\n" if command[-1] == b"1" else bulk(command[-1])

    async with ScriptedServer(answer) as server:
        link = await connect(server)
        first, second, third = await asyncio.gather(
            *(link.call("ECHO", str(n)) for n in range(3)), return_exceptions=True
        )
        assert (first, third) == (b"0", b"2")
        assert isinstance(second, ResponseError)
        assert link.alive


async def test_a_cancelled_caller_keeps_its_place_in_the_line(connect: Connect) -> None:
    """Its reply comes all the same, and must not be given to the next."""
    server = ScriptedServer(lambda _: None)
    async with server:
        link = await connect(server)
        calls = [asyncio.ensure_future(link.call("ECHO", str(n))) for n in range(3)]
        await heard(server, 3)
        calls[1].cancel()
        await server.say(bulk(b"0") + bulk(b"1") + bulk(b"2"))
        assert await calls[0] == b"0"
        assert await calls[2] == b"2"
        assert calls[1].cancelled()


@pytest.mark.parametrize("command", [("GET", "\udcff"), ("GET", None), ("GET", object())])
async def test_a_command_that_cannot_be_sent_disturbs_nobody(connect: Connect, command: tuple[str]) -> None:
    """Whatever raises before anything was sent must not wait for a reply."""
    async with ScriptedServer() as server:
        link = await connect(server)
        with pytest.raises((TypeError, UnicodeEncodeError)):
            await link.call(*command)
        assert await asyncio.gather(*(link.call("ECHO", str(n)) for n in range(3))) == [b"0", b"1", b"2"]


async def test_a_caller_that_is_cancelled_while_the_socket_is_full_leaves_nothing_behind(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a command may have left, so the connection ends; nobody is told of a reply that nobody waits for."""
    async with ScriptedServer() as server:
        link = await connect(server)
        full = asyncio.Event()

        async def wait_for_ever(*_: object, **__: object) -> None:
            full.set()
            await asyncio.get_running_loop().create_future()

        monkeypatch.setattr(link._connection, "send_packed_command", wait_for_ever)
        call = asyncio.ensure_future(link.call("ECHO", "1"))
        await asyncio.wait_for(full.wait(), 10)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        (reply, *_) = link._waiting[0]
        assert reply.cancelled()


async def test_a_late_reply_ends_the_link_for_all(connect: Connect) -> None:
    """After it nobody could say which reply is whose."""
    async with ScriptedServer(lambda _: None) as server:
        link = await connect(server)
        calls = [link.call("ECHO", str(n), timeout=0.05) for n in range(3)]
        for result in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(result, RedisTimeoutError)
        assert not link.alive
        with pytest.raises(RedisConnectionError):
            await link.call("ECHO", "again")


async def test_a_short_patience_is_not_stretched_by_a_long_one(connect: Connect) -> None:
    """Each call has its own deadline, whichever came first."""
    async with ScriptedServer(lambda _: None) as server:
        link = await connect(server)
        long = asyncio.ensure_future(link.call("ECHO", "1", timeout=60))
        await heard(server, 1)
        async with asyncio.timeout(30):
            with pytest.raises(RedisTimeoutError):
                await link.call("ECHO", "2", timeout=0.05)
            with pytest.raises(RedisTimeoutError):
                await long


async def test_a_reply_that_lay_unread_in_a_blocked_loop_is_not_late(connect: Connect) -> None:
    """A blocking call beside an enqueue is bad enough; the server has answered, and must not be blamed."""
    async with ScriptedServer(lambda _: None) as server:
        link = await connect(server)
        call = asyncio.ensure_future(link.call("ECHO", "1", timeout=60))
        await heard(server, 1)
        await server.say(bulk(b"1"))
        ((reply, _, _),) = link._waiting
        soon = asyncio.get_running_loop().time() + 0.3  # counted from here, so that no pause before it matters
        link._waiting[0] = (reply, soon, 0.3)
        link._watch(soon)
        time.sleep(0.6)
        assert await call == b"1"


async def test_a_loop_that_is_blocked_again_and_again_does_not_wait_for_ever(connect: Connect) -> None:
    """It is spared once for one silence."""
    async with ScriptedServer(lambda _: None) as server:
        link = await connect(server)
        call = asyncio.ensure_future(link.call("ECHO", "1", timeout=0.05))
        await heard(server, 1)
        for _ in range(5):
            time.sleep(0.3)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        with pytest.raises(RedisTimeoutError):
            await asyncio.wait_for(call, 0.05)


async def test_a_server_that_answers_one_after_the_other_is_not_lost(connect: Connect) -> None:
    """Who waits behind many others waits longer than a reply takes."""
    async with ScriptedServer(lambda _: None) as server:
        link = await connect(server)
        calls = asyncio.gather(*(link.call("ECHO", str(n), timeout=1) for n in range(8)))
        await heard(server, 8)
        for n in range(8):
            await server.say(bulk(b"%d" % n))
            await asyncio.sleep(0.15)
        assert await calls == [b"%d" % n for n in range(8)]


async def test_a_cut_connection_tells_everybody(connect: Connect) -> None:
    """None of them can know whether its command was executed, and each decides for itself."""
    async with ScriptedServer(lambda _: None) as server:
        link = await connect(server)
        calls = [asyncio.ensure_future(link.call("ECHO", str(n))) for n in range(3)]
        await heard(server, 3)
        await server.drop()
        for result in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(result, RedisConnectionError)
        assert not link.alive


async def test_a_write_that_fails_ends_the_link_and_its_tasks(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever closes a link waits for its tasks; a writer that waits for more to write would hold him up for ever."""
    async with ScriptedServer(lambda _: None) as server:
        link = await connect(server)
        first = asyncio.ensure_future(link.call("ECHO", "1"))
        await heard(server, 1)

        async def fails(*_: object, **__: object) -> None:
            raise RedisConnectionError("broken pipe")

        monkeypatch.setattr(link._connection, "send_packed_command", fails)
        for call in (first, asyncio.ensure_future(link.call("ECHO", "2"))):
            with pytest.raises(RedisConnectionError):
                await call
        async with asyncio.timeout(10):
            await link.close()


async def test_close_answers_who_still_waits(connect: Connect) -> None:
    """A program that ends must not hang in a call."""
    async with ScriptedServer(lambda _: None) as server:
        link = await connect(server)
        call = asyncio.ensure_future(link.call("ECHO", "1"))
        await heard(server, 1)
        await link.close()
        await link.close()
        with pytest.raises(RedisConnectionError):
            await call


async def test_a_reply_that_nobody_asked_for_ends_the_link(connect: Connect) -> None:
    """Something on the way is lying, and no later reply can be trusted."""
    async with ScriptedServer() as server:
        link = await connect(server)
        assert await link.call("ECHO", "1") == b"1"
        await server.say(b"+surprise\r\n")
        async with asyncio.timeout(10):
            while link.alive:
                await asyncio.sleep(0)
        with pytest.raises(RedisConnectionError):
            await link.call("ECHO", "2")


@pytest.mark.parametrize("garbage", [b"nonsense\r\n", b"$5\r\nabc", b"\x00\xff\r\n"])
async def test_what_is_no_reply_ends_the_link(connect: Connect, garbage: bytes) -> None:
    """Half a reply and a cut, or a proxy's own words."""
    async with ScriptedServer(lambda _: garbage) as server:
        link = await connect(server)
        call = asyncio.ensure_future(link.call("ECHO", "1", timeout=10))
        await heard(server, 1)
        if garbage.startswith(b"$"):
            await server.drop()
        with pytest.raises(RedisError):
            await call
        assert not link.alive


async def test_commands_of_one_turn_leave_in_their_order(connect: Connect) -> None:
    """A script that is called after another relies on it."""
    async with ScriptedServer() as server:
        link = await connect(server)
        await asyncio.gather(*(link.call("ECHO", str(n)) for n in range(CALLS)))
        assert [command[-1] for command in server.heard] == [b"%d" % n for n in range(CALLS)]


def _confirm(command: list[bytes]) -> bytes:
    return b">3\r\n$10\r\nssubscribe\r\n" + bulk(command[1]) + b":1\r\n"


async def test_a_subscription_is_confirmed_before_it_counts() -> None:
    """Whoever asks for a state first and listens afterwards misses what happens in between."""
    messages: list[tuple[str, str]] = []
    async with ScriptedServer(lambda _: None) as server:
        connection = await route_of_url(server.url).connect("k")
        subscription = Subscription(connection, lambda *message: messages.append(message), lambda _: None)
        subscribing = asyncio.ensure_future(subscription.subscribe("c"))
        await heard(server, 1)
        assert not subscribing.done()
        await server.say(_confirm(server.heard[0]))
        await asyncio.wait_for(subscribing, 10)
        await server.say(b">3\r\n$8\r\nsmessage\r\n$1\r\nc\r\n$5\r\nhello\r\n")
        async with asyncio.timeout(10):
            while not messages:
                await asyncio.sleep(0)
        assert messages == [("c", "hello")]
        await subscription.close()


async def test_a_subscription_that_is_cut_tells_who_waits_for_it() -> None:
    """Otherwise the wait for the confirmation would last until its time-out."""
    async with ScriptedServer(lambda _: None) as server:
        subscription = Subscription(await route_of_url(server.url).connect("k"), lambda *_: None, lambda _: None)
        subscribing = asyncio.ensure_future(subscription.subscribe("c"))
        await heard(server, 1)
        await server.drop()
        with pytest.raises(RedisConnectionError):
            await asyncio.wait_for(subscribing, 10)
        await asyncio.wait_for(subscription.ended(), 10)
        await subscription.close()


async def test_a_link_that_is_closed_at_once_leaves_no_socket_open() -> None:
    """Its tasks are cancelled before their first step, so no clean-up of theirs has run."""
    async with ScriptedServer() as server:
        connection = await route_of_url(server.url).connect("k")
        await Link(connection).close()
        assert not connection.is_connected
        connection = await route_of_url(server.url).connect("k")
        await Subscription(connection, lambda *_: None, lambda _: None).close()
        assert not connection.is_connected
