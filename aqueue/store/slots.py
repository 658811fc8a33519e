"""Which server of a Cluster has which slot, as told by whichever server answers first.

redis-py's own cluster client asks one server of its choice before it serves anybody, and is of no use while that one is
away: a map must be had as long as one server answers, for the queues of all others go on.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeAlias

from redis.crc import key_slot
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

Host: TypeAlias = tuple[str, int]

NEXT_SECONDS: Final = 0.25
"""A server that has not answered by then gets company: the next one is asked beside it."""


class SlotMap:
    """The primary of every slot, and all servers that were named."""

    def __init__(self, ranges: Sequence[Any], asked: Host) -> None:
        """Read an answer to CLUSTER SLOTS; a server that does not know its own name is the one that was asked."""
        self.hosts: set[Host] = set()
        self._owners: dict[int, str] = {}
        for first, last, *servers in ranges:
            named = [(_text(server[0]) or asked[0], int(server[1])) for server in servers]
            self.hosts.update(named)
            host, port = named[0]
            self._owners.update(dict.fromkeys(range(int(first), int(last) + 1), f"{host}:{port}"))

    def node(self, key: str) -> str | None:
        """Name the primary that has this key, as host:port; None where no server covers it."""
        return self._owners.get(key_slot(key.encode()))


def _text(value: bytes | str | None) -> str:
    text = value.decode() if isinstance(value, bytes) else value or ""
    return "" if text == "?" else text


async def draw(hosts: Sequence[Host], connect: Callable[[Host], Awaitable[Any]]) -> SlotMap:
    """Ask one server after the other, in random order, until one has told its map.

    Errors: those of the last one asked, if none has.
    """
    asking: set[asyncio.Task[SlotMap]] = set()
    problem: BaseException = RedisConnectionError("no server of the cluster is known")
    waiting = random.sample(hosts, len(hosts))
    try:
        while waiting or asking:
            if waiting:
                asking.add(asyncio.create_task(_ask(waiting.pop(), connect), name="aqueue slot map"))
            patience = NEXT_SECONDS if waiting else None
            done, asking = await asyncio.wait(asking, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            for answer in done:
                error = answer.exception()
                if error is None:
                    return answer.result()
                problem = error
    finally:
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
    raise problem


async def _ask(host: Host, connect: Callable[[Host], Awaitable[Any]]) -> SlotMap:
    connection = await connect(host)
    try:
        await connection.send_command("CLUSTER", "SLOTS")
        ranges = await connection.read_response(disable_decoding=True)
    except ResponseError as refusal:  # it is no member of a cluster, or tells us nothing
        raise RedisConnectionError(str(refusal)) from refusal
    finally:
        await connection.disconnect(nowait=True)
    if not ranges:
        raise RedisConnectionError(f"{host[0]}:{host[1]} knows of no slot that is served")
    return SlotMap(ranges, host)
