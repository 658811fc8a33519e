"""Runs the fixed workload under a proxy that lies, and says what came of it."""

from __future__ import annotations

import traceback
from collections import Counter
from dataclasses import dataclass

import redis
from servers import Server

from faults.history import complaints, remains
from faults.proxy import Decide, Proxy
from faults.workload import Workload


@dataclass
class Tried:
    """One run of the workload: what it called, how often a lie was told, and what went wrong."""

    calls: Counter[str]
    lies: int
    wrong: list[str]


class Laboratory:
    """Runs the workload again and again, each time on a queue of its own."""

    def __init__(self, server: Server, raw: redis.Redis) -> None:
        self._server = server
        self._raw = raw
        self._runs = 0

    async def tried(self, decide: Decide) -> Tried:
        """Run the workload under a proxy that lies like this."""
        self._runs += 1
        name = f"sweep{self._runs}"
        async with Proxy(self._server.socket, decide) as proxy:
            producer, worker = await proxy.door("producer"), await proxy.door("worker")
            work = Workload(name, producer=producer.url, worker=worker.url, raw=self._raw, raw_url=self._server.url)
            wrong = []
            try:
                await work.run()
            except Exception as error:  # noqa: BLE001  # whatever it is, it is what this is about
                wrong = [f"{work.stage}: {error!r}", *traceback.format_tb(error.__traceback__)[-2:]]
            wrong += complaints(work.history, remains(self._raw, work.name))
            return Tried(Counter(request.name for request in proxy.requests), len(proxy.lies), wrong)
