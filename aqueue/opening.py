"""How a queue comes to its store client: where Redis is, and whether the server there is fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aqueue.errors import ConfigurationError
from aqueue.job import QueueName
from aqueue.settings import Settings
from aqueue.store import address
from aqueue.store.client import Client
from aqueue.store.connection import Server
from aqueue.store.preflight import check_server
from aqueue.store.wire import Wire

if TYPE_CHECKING:
    import redis.asyncio as redis_asyncio

_servers: Final[dict[str, Server]] = {}
"""Queues that name the same URL share its connections."""


class Opening:
    """The way of one queue to its server, found at the first call."""

    def __init__(
        self,
        queue: QueueName,
        settings: Settings,
        wire: Wire,
        *,
        url: str | None = None,
        given: redis_asyncio.Redis | redis_asyncio.RedisCluster | None = None,
    ) -> None:
        if url is not None and given is not None:
            raise ConfigurationError("url and client both say where Redis is; give only one of them.")
        self._queue = queue
        self._settings = settings
        self._wire = wire
        self._url = None if url is None else address.checked_url(url)
        self._given = given
        self._client: Client | None = None
        self.checked: Client | None = None
        """The client, once its server is known to be fit."""

    async def check(self) -> Client:
        """Give the client of a server that is fit. Errors: as Queue.store."""
        client = self.client()
        await check_server(client)
        self.checked = client
        return client

    def client(self) -> Client:
        """Give the client without asking the server anything."""
        if self._client is None:
            self._client = Client(self._server(), self._queue, self._settings, self._wire)
        return self._client

    def _server(self) -> Server:
        if self._given is not None:
            given = self._given
            return Server(lambda: address.route_of_client(given))
        url = address.checked_url(address.resolve(self._url))
        if url not in _servers:
            _servers[url] = Server(lambda: address.route_of_url(url))
        return _servers[url]

    @property
    def address(self) -> str:
        """Where Redis is, without secrets."""
        return "the given client" if self._given is not None else address.masked(address.resolve(self._url))

    async def close(self) -> None:
        """Give the running loop's connections back."""
        if self._client is not None:
            await self._client.close()
