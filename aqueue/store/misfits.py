"""Keys of ours under which something lies that is none of aqueue's: written by another program, or by a slip of a hand.

A server refuses every command on such a key, so that no script gets past it; and what lies there may be dear to
somebody, so that nothing here or elsewhere removes it. It is only named.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from aqueue.errors import StoreError, StoreUnavailable
from aqueue.job import WorkerId
from aqueue.store.client import Client
from aqueue.store.keys import TYPES, parts_of

AT_ONCE: Final = 500
"""Questions that travel together."""
MISSING: Final = "none"
"""What the server calls the type of a key that does not exist."""


@dataclass(frozen=True, slots=True)
class Misfit:
    """One such key, with the type that it has and those that aqueue gives it."""

    key: str
    found: str
    wanted: tuple[str, ...]


async def misfits(store: Client, workers: Iterable[WorkerId] = ()) -> list[Misfit]:
    """Look at the keys of a queue that all its operations need, and at those of its workers, and of `workers`.

    Errors: StoreUnavailable. A user who may not ask for types is told of none.
    """
    try:
        found = await _of_wrong_type(store, _keys_of_queue(store))
        if store.keys.workers not in {one.key for one in found}:
            alive = [WorkerId(name.decode()) for name in await store.plain("ZRANGE", store.keys.workers, 0, -1)]
            found += await _of_wrong_type(store, _keys_of_workers(store, {*alive, *workers}))
    except StoreUnavailable:
        raise
    except StoreError:
        return []
    return found


def _keys_of_queue(store: Client) -> list[str]:
    keys = store.keys
    return [
        keys.queued, keys.suspects, keys.ranked, keys.held_back, keys.shelves, keys.timers, keys.scheduled,
        keys.workers, keys.schedules, keys.user_made, keys.changed, keys.failed, keys.pruned, keys.paused, keys.stats,
    ]  # fmt: skip


def _keys_of_workers(store: Client, names: Iterable[WorkerId]) -> list[str]:
    keys = store.keys
    return [key for name in sorted(names) for key in (keys.worker(name), keys.inbox(name), keys.held(name))]


async def gate_misfits(store: Client, keys: Iterable[str]) -> list[Misfit]:
    """Look at the keys of gates that a walk has met. Errors: as `misfits`."""
    try:
        return await _of_wrong_type(store, sorted(keys))
    except StoreUnavailable:
        raise
    except StoreError:
        return []


async def _of_wrong_type(store: Client, keys: list[str]) -> list[Misfit]:
    found: list[Misfit] = []
    for start in range(0, len(keys), AT_ONCE):
        some = keys[start : start + AT_ONCE]
        for key, answer in zip(some, await asyncio.gather(*(store.plain("TYPE", key) for key in some)), strict=True):
            parts = parts_of(store.keys.prefix, key)
            type_, wanted = answer.decode(), TYPES[parts[1]] if parts is not None else ()
            if type_ not in (MISSING, *wanted):
                found.append(Misfit(key, type_, wanted))
    return found
