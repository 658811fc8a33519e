"""Fixtures: the client under test, and the store behind its back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import pytest
import redis
from servers import Server

from aqueue.job import QueueName
from aqueue.settings import Settings
from aqueue.store.address import route_of_url
from aqueue.store.client import Client
from aqueue.store.connection import Server as StoreServer
from transitions.store_image import BASE, Store

LEASE_SECONDS = 20
"""A multiple of ten, as images of the store want it."""

MakeClient: TypeAlias = Callable[..., Client]
Listening: TypeAlias = Callable[[str], Any]


@pytest.fixture
async def make_client(server: Server) -> AsyncIterator[MakeClient]:
    """Make clients of queue `q` with settings of one's own; all are closed at the end."""
    made: list[Client] = []

    def make(**settings: Any) -> Client:
        options: Any = {"lease": LEASE_SECONDS, **settings}
        client = Client(StoreServer(lambda: route_of_url(server.url)), QueueName("q"), Settings(**options))
        made.append(client)
        return client

    yield make
    for client in made:
        await client.close()


@pytest.fixture
async def client(make_client: MakeClient) -> Client:
    return make_client()


@pytest.fixture
def store(raw: redis.Redis) -> Store:
    return Store(raw)


@pytest.fixture
def listening(raw: redis.Redis) -> Listening:
    """`with listening("name") as heard: …; heard()` gives what was said on that channel meanwhile."""

    @contextmanager
    def listen(name: str) -> Generator[Callable[[], list[str]]]:
        talker: Any = raw  # redis-py leaves parts of its client untyped
        subscription = talker.pubsub()
        channel = f"{BASE}channel:{name}"
        subscription.ssubscribe(channel)
        assert subscription.get_message(timeout=30)["type"] == "ssubscribe"

        def heard() -> list[str]:
            talker.execute_command("SPUBLISH", channel, "END")
            said: list[str] = []
            while (message := subscription.get_message(timeout=30)) is not None and message["data"] != "END":
                said.append(message["data"])
            return said

        yield heard
        subscription.close()

    return listen


@pytest.fixture
def full(raw: redis.Redis) -> Iterator[Callable[[], None]]:
    """Let the server be out of memory from the call on."""

    def fill() -> None:
        raw.config_set("maxmemory-policy", "noeviction")
        raw.config_set("maxmemory", 1)

    yield fill
    raw.config_set("maxmemory", 0)
