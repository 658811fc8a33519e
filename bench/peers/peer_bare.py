"""No queue at all: what one script call costs with redis-py, as the yardstick for a single enqueue."""

from __future__ import annotations

from typing import Any

import redis.asyncio

from bench.peers.base import AsyncPeer, Config, Unsupported, main

SCRIPT = "return 1"


class Bare(AsyncPeer):
    name = "bare redis-py"
    about = "One EVALSHA of a script that returns 1, with redis.asyncio, hiredis and uvloop."
    stores_results = False

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.redis = redis.asyncio.Redis.from_url(config.url)
        self.sha = ""

    async def open(self) -> None:
        self.sha = str(await self.redis.script_load(SCRIPT))

    async def close(self) -> None:
        await self.redis.aclose()

    async def enqueue(self, task: str, number: int, payload: str | None = None) -> Any:
        return await self.redis.evalsha(self.sha, 1, "bare", f"{task} {number}")

    def work(self) -> None:
        raise Unsupported("there is no worker")


if __name__ == "__main__":
    main(Bare)
