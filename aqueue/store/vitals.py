"""What a server says of itself that matters to a queue: durability, memory, role, clock, speed.

Only asked when somebody wants to know; nothing is judged here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from aqueue.errors import StoreError, StoreUnavailable
from aqueue.store import scripts
from aqueue.store.client import Client
from aqueue.store.scripts import Arg

PINGS: Final = 10
"""Round trips to time; one alone says little."""


class Vitals(msgspec.Struct, frozen=True, kw_only=True):
    """One server at one moment; `info` holds the lines of INFO, empty where this user may not ask.

    Units: seconds; `clock_ahead` is positive where the server's clock is ahead of this machine's.
    """

    label: str
    info: Mapping[str, str]
    cluster: Mapping[str, str] | None
    """The lines of CLUSTER INFO, None for a server that is no part of a cluster or may not be asked."""
    clock_ahead: float
    round_trips: list[float]
    scripts_loaded: int | None
    scripts: int
    refused: list[str]
    """What this user may not ask."""

    def number(self, name: str) -> int:
        """Give a number of INFO, 0 where there is none."""
        text = self.info.get(name, "")
        return int(text) if text.isdigit() else 0


async def vitals(store: Client) -> Vitals:
    """Examine the server of a queue. Errors: StoreUnavailable, StoreError where nothing at all may be asked."""
    refused: list[str] = []

    async def lines(*command: Arg) -> dict[str, str]:
        return _lines(await _permitted(store, refused, *command) or b"")

    info = await lines("INFO")
    cluster = await lines("CLUSTER", "INFO") if info.get("cluster_enabled") == "1" else None
    known = [scripts.load(name).sha for name in scripts.names()]
    loaded = await _permitted(store, refused, "SCRIPT", "EXISTS", *known)
    return Vitals(
        label=store.links.route.label,
        info=info,
        cluster=cluster,
        clock_ahead=await _clock_ahead(store),
        round_trips=await _round_trips(store),
        scripts_loaded=None if loaded is None else sum(loaded),
        scripts=len(known),
        refused=refused,
    )


async def _ask(store: Client, *command: Arg) -> Any:
    return await store.links.send(store.keys.queued, command)


async def _permitted(store: Client, refused: list[str], *command: Arg) -> Any:
    """Ask, or note that this user may not."""
    try:
        return await _ask(store, *command)
    except StoreUnavailable:
        raise
    except StoreError:
        refused.append(" ".join(word for word in command[:2] if isinstance(word, str) and word.isupper()))
        return None


def _lines(text: Any) -> dict[str, str]:
    decoded = text.decode("utf-8", "replace") if isinstance(text, bytes) else ""
    return dict(line.split(":", 1) for line in decoded.splitlines() if ":" in line)


async def _clock_ahead(store: Client) -> float:
    sent = time.time()
    seconds, micros = await store.plain("TIME")
    received = time.time()
    return float(int(seconds) + int(micros) / 1e6 - (sent + received) / 2)


async def _round_trips(store: Client) -> list[float]:
    loop = asyncio.get_running_loop()
    taken = []
    for _ in range(PINGS):
        sent = loop.time()
        await _ask(store, "PING")
        taken.append(loop.time() - sent)
    return sorted(taken)
