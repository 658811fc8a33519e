"""The subscription of one process: whoever listens on it must learn when messages may have been missed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from servers import Server, binaries

from aqueue.store.address import route_of_url
from aqueue.store.mailbox import Listener, Mailbox

DEADLINE_SECONDS = 10.0
"""Ends a test that has failed; what is waited for comes within milliseconds, the keeper's pause is a second."""


@pytest.fixture
def engine() -> str:
    """What is tested is on this side of the connection; one server will do."""
    return next(iter(binaries()))


class Noting(Listener):
    """Notes what it is told."""

    def __init__(self) -> None:
        self.messages: asyncio.Queue[str] = asyncio.Queue()
        self.told = asyncio.Event()

    def heard(self, message: str) -> None:
        self.messages.put_nowait(message)

    def restored(self) -> None:
        self.told.set()


class Door:
    """The way to a server, unless it is shut."""

    def __init__(self, url: str) -> None:
        self._route = route_of_url(url)
        self.shut = False
        self.tried = asyncio.Event()

    async def connect(self) -> AbstractConnection:
        if self.shut:
            self.tried.set()
            raise RedisConnectionError("shut")
        return await self._route.connect("channel")


@pytest.fixture
async def door(server: Server) -> Door:
    return Door(server.url)


@pytest.fixture
async def mailbox(door: Door) -> AsyncIterator[Mailbox]:
    mailbox = Mailbox(door.connect)
    yield mailbox
    await mailbox.close()


async def test_a_cut_subscription_is_opened_again_and_told(mailbox: Mailbox, raw: redis.Redis) -> None:
    """Messages of the time between are gone, so whoever listens has to ask."""
    listener = Noting()
    await mailbox.listen("a", listener)
    assert not listener.told.is_set()

    raw.client_kill_filter(_type="pubsub")

    async with asyncio.timeout(DEADLINE_SECONDS):
        await listener.told.wait()
        raw.spublish("a", "hello")
        assert await listener.messages.get() == "hello"


async def test_several_may_listen_on_one_channel(mailbox: Mailbox, raw: redis.Redis) -> None:
    """Each worker of a process does; one that leaves takes nothing from the others."""
    one, other = Noting(), Noting()
    await mailbox.listen("a", one)
    await mailbox.listen("a", other)
    async with asyncio.timeout(DEADLINE_SECONDS):
        raw.spublish("a", "to both")
        assert [await one.messages.get(), await other.messages.get()] == ["to both"] * 2
        await mailbox.forget("a", one)
        raw.spublish("a", "to one")
        assert await other.messages.get() == "to one"
    assert one.messages.empty()
    await mailbox.forget("a", other)
    async with asyncio.timeout(DEADLINE_SECONDS):
        while raw.pubsub_shardchannels():  # nobody waits for the server to have heard it
            await asyncio.sleep(0.001)


async def test_a_subscription_that_a_newcomer_opens_again_is_told_too(
    mailbox: Mailbox, door: Door, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever opens it first after an outage, what the others missed must be asked for now, not at the next net."""
    monkeypatch.setattr("aqueue.store.mailbox.random.uniform", lambda *_: 20)
    before, newcomer = Noting(), Noting()
    await mailbox.listen("a", before)
    door.shut = True
    raw.client_kill_filter(_type="pubsub")
    async with asyncio.timeout(DEADLINE_SECONDS):
        await door.tried.wait()

    door.shut = False
    await mailbox.listen("b", newcomer)

    async with asyncio.timeout(DEADLINE_SECONDS):
        await before.told.wait()
