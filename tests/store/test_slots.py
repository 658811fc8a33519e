"""The map of a Cluster is had as long as one server tells it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis.crc import key_slot
from redis.exceptions import AuthenticationError
from redis.exceptions import ConnectionError as RedisConnectionError

from aqueue.store.slots import Host, SlotMap, draw

SELF = ("asked", 7000)


def test_every_slot_of_a_range_has_its_primary() -> None:
    """Both ends belong to a range; replicas follow the primary and serve nothing."""
    slot = key_slot(b"{q}x")
    drawn = SlotMap([[slot, slot, [b"one", 1, b"id"], [b"replica", 2, b"id"]]], SELF)
    assert drawn.node("{q}x") == "one:1"
    assert drawn.hosts == {("one", 1), ("replica", 2)}
    assert SlotMap([[slot + 1, 16383, [b"one", 1, b"id"]]], SELF).node("{q}x") is None


@pytest.mark.parametrize("name", [b"", None, b"?"])
def test_a_server_that_does_not_know_its_name_is_the_one_that_was_asked(name: bytes | None) -> None:
    """Servers announce nothing until they were met, or are told to announce nothing."""
    assert SlotMap([[0, 16383, [name, 7000, b"id"]]], SELF).node("x") == "asked:7000"


class Told:
    """A connection to a server that answers at once, or never."""

    def __init__(self, host: Host, *, silent: bool) -> None:
        self._host = host
        self._silent = silent

    async def send_command(self, *_: str) -> None:
        if self._silent:
            await asyncio.Event().wait()

    async def read_response(self, **_: bool) -> list[Any]:
        return [[0, 16383, [self._host[0].encode(), self._host[1], b"id"]]]

    async def disconnect(self, *, nowait: bool) -> None:
        assert nowait


async def test_one_server_that_answers_is_enough() -> None:
    """Of three, one is dead and one says nothing; whatever the order in which they are asked."""

    async def connect(host: Host) -> Told:
        if host[0] == "dead":
            raise RedisConnectionError("refused")
        return Told(host, silent=host[0] == "silent")

    for _ in range(10):
        drawn = await draw([("dead", 1), ("silent", 1), ("alive", 1)], connect)
        assert drawn.node("x") == "alive:1"
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "aqueue slot map"]


async def test_where_none_answers_the_reason_is_told() -> None:
    """A wrong password must not look like an outage."""

    async def connect(_: Host) -> Told:
        raise AuthenticationError("WRONGPASS")

    with pytest.raises(AuthenticationError, match="WRONGPASS"):
        await draw([("one", 1), ("two", 1)], connect)
