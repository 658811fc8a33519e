"""What is asked of a server before the first job: is it new enough, and does it keep what it is given?"""

from __future__ import annotations

import logging
from typing import Final

from aqueue.errors import StoreError, StoreUnavailable, UnsafeServer
from aqueue.store.client import Client
from aqueue.store.records import ServerFacts

log = logging.getLogger("aqueue.store")

OLDEST: Final = {"redis": (7, 0), "valkey": (7, 2)}
"""Sharded channels, script flags and the list commands used here exist from then on."""

_warned: Final[set[str]] = set()


async def check_server(client: Client) -> ServerFacts | None:
    """Refuse a server that is too old, and warn about one that evicts keys.

    Errors: StoreError; UnsafeServer with `Settings(strict=True)`; StoreUnavailable.
    """
    label = client.links.route.label
    try:
        facts = await client.facts()
    except StoreUnavailable:
        raise
    except StoreError as error:  # a user without the right to ask may still have all it needs
        log.debug("the server was not checked: %s", error)
        return None
    if facts.version < OLDEST[facts.product]:
        wanted = ".".join(map(str, OLDEST[facts.product]))
        found = ".".join(map(str, facts.version))
        raise StoreError(f"{facts.product} {found} at {label} is too old for aqueue; upgrade it to {wanted} or newer.")
    if facts.eviction not in ("noeviction", "unknown"):
        message = (
            f"The server at {label} evicts keys when memory is full (maxmemory-policy {facts.eviction}), "
            "which silently loses jobs; set maxmemory-policy noeviction."
        )
        if client.settings.strict:
            raise UnsafeServer(message)
        if label not in _warned:
            _warned.add(label)
            log.warning(message)
    return facts
