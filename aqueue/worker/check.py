"""Is there a live worker? The answer of `--check`, from Redis alone: the application is not imported.

A worker is alive while its lease lasts. Its heartbeat renews that, and stops when the process dies, is frozen, or its
event loop has not turned for `blocked_loop_cap`.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Sequence
from contextlib import AsyncExitStack

from aqueue.errors import ConfigurationError
from aqueue.queue import Queue
from aqueue.settings import Settings
from aqueue.store.codec import worker_host
from aqueue.store.records import QueueStats

log = logging.getLogger("aqueue.worker")


async def check(names: Sequence[str], url: str | None, *, here: bool, prefix: str | None = None) -> int:
    """Give 0 if live workers serve these queues, else 1; without names all queues are meant.

    With `here` only workers of this host count; without names too, it is enough that one of them serves any queue.
    Errors: StoreUnavailable, StoreError; ConfigurationError for what is no name.
    """
    for name in names:
        if ":" in name:
            raise ConfigurationError(f"--check takes names of queues such as default, not {name!r}.")
    settings = Settings() if prefix is None else Settings(prefix=prefix)
    async with AsyncExitStack() as stack:

        async def opened(name: str) -> Queue:
            return await stack.enter_async_context(Queue(name, url=url, settings=settings))

        any_will_do = here and not names
        for name in names or await (await (await opened("check")).store()).queue_names():
            served = _is_served(await (await opened(name)).stats(), here=here)
            if served and any_will_do:
                return 0
            if not served and not any_will_do:
                log.error("no live worker%s serves queue %s", " of this host" if here else "", name)
                return 1
        if any_will_do:
            log.error("no live worker of this host (%s) serves any queue", socket.gethostname())
    return 1 if any_will_do else 0


def _is_served(stats: QueueStats, *, here: bool) -> bool:
    host = socket.gethostname()
    return any(one.lease_left > 0 and (not here or worker_host(one.info) == host) for one in stats.workers)
