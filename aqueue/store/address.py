"""Where Redis is: from a URL to open connections.

A `Route` knows how to reach the server that owns a key, and nothing of what is said there. Connections are built
from redis-py's connection classes, never from its clients: a redis-py client re-sends commands on its own after a
time-out, which for a queue means a job taken or stored twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

import redis.asyncio as redis_asyncio
from redis.asyncio.connection import (
    AbstractConnection,
    Connection,
    SSLConnection,
    UnixDomainSocketConnection,
    parse_url,
)
from redis.asyncio.retry import Retry as RedisRetry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError

from aqueue import embedded
from aqueue.errors import ConfigurationError
from aqueue.store import tls
from aqueue.store.link import GARBLED
from aqueue.store.slots import SlotMap, draw

CONNECT_SECONDS: Final = 5.0
"""Time for the socket and the greeting; a local network answers in milliseconds."""

ENVIRONMENT: Final = "AQUEUE_URL"
SCHEMES: Final = "redis, rediss, valkey, valkeys, unix, redis+sentinel, redis+cluster, embedded"

_KEEPALIVE: Final = {
    getattr(socket, name): value
    # A peer that vanished without a word is noticed after 15 + 3 x 5 seconds.
    for name, value in {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}.items()
    if hasattr(socket, name)
}


def _owned(connection_class: type[AbstractConnection]) -> dict[str, Any]:
    """Give the options that make a connection ours: it neither re-sends nor times out behind our back."""
    options: dict[str, Any] = {
        "socket_timeout": None,  # deadlines are kept per call, in link.py
        "socket_connect_timeout": CONNECT_SECONDS,
        "retry": RedisRetry(NoBackoff(), 0),
        "retry_on_timeout": False,
        "health_check_interval": 0,
        "decode_responses": False,
        "protocol": 3,
    }
    if not issubclass(connection_class, UnixDomainSocketConnection):
        options |= {"socket_keepalive": True, "socket_keepalive_options": _KEEPALIVE}
    return options


class Route(ABC):
    """How to reach the server of a key, from one event loop."""

    def __init__(self, label: str) -> None:
        self.label = label
        """The address as it may be shown: without secrets."""
        self.tls: Mapping[str, Any] | None = None
        """The options of TLS; None where there is none."""

    def known_node(self, key: str) -> str | None:  # noqa: ARG002  # only a cluster has several
        """Name the server that owns `key`, None where that has to be asked first; what it owns shares a connection."""
        return ""

    async def node(self, key: str) -> str:  # noqa: ARG002  # as above
        """Name the server that owns `key`, and ask for it where need be."""
        return ""

    @abstractmethod
    async def connect(self, key: str) -> AbstractConnection:
        """Open a connection to the server that owns `key`. Errors: those of redis-py, and OSError."""

    async def refresh(self) -> None:  # noqa: B027  # only a cluster has something to forget
        """Forget what was learned about the servers: one of them is not the right one, or is away."""

    async def close(self) -> None:  # noqa: B027  # only sentinels and clusters are asked
        """Give back what learning about the servers has opened."""


class DirectRoute(Route):
    """One server at a fixed address."""

    def __init__(self, label: str, connection_class: type[AbstractConnection], options: Mapping[str, Any]) -> None:
        super().__init__(label)
        self._class = tls.TlsConnection if connection_class is SSLConnection else connection_class
        self._options = {**options, **_owned(connection_class)}
        if issubclass(connection_class, SSLConnection):
            self.tls = self._options

    async def connect(self, key: str) -> AbstractConnection:  # noqa: ARG002  # one server owns every key
        return await _greet(self._class(**self._options))


class EmbeddedRoute(DirectRoute):
    """The development server of a directory, started when it does not run."""

    def __init__(self, directory: Path) -> None:
        super().__init__(f"embedded://{directory}", UnixDomainSocketConnection, {})
        self._directory = directory

    async def connect(self, key: str) -> AbstractConnection:
        path = await asyncio.to_thread(embedded.ensure_running, self._directory)
        self._options["path"] = str(path)
        return await super().connect(key)


class SentinelRoute(Route):
    """Whichever server the sentinels call the primary of a service, asked at every connect."""

    def __init__(self, label: str, hosts: list[tuple[str, int]], service: str, options: Mapping[str, Any]) -> None:
        super().__init__(label)
        self._service = service
        self._class = tls.TlsConnection if options.get("ssl") else Connection
        self._options = {**{name: value for name, value in options.items() if name != "ssl"}, **_owned(self._class)}
        self.tls = self._options if options.get("ssl") else None
        tls_options = {name: value for name, value in options.items() if name.startswith("ssl")}
        patience = {"socket_timeout": CONNECT_SECONDS, "socket_connect_timeout": CONNECT_SECONDS}
        self._sentinel = Sentinel(  # type: ignore[no-untyped-call]  # redis-py leaves it untyped
            hosts, sentinel_kwargs={**patience, **tls_options}
        )

    async def connect(self, key: str) -> AbstractConnection:  # noqa: ARG002  # one primary owns every key
        host, port = await self._sentinel.discover_master(self._service)
        return await _greet(self._class(host=host, port=port, **self._options))

    async def close(self) -> None:
        for sentinel in self._sentinel.sentinels:
            await sentinel.aclose()


class ClusterRoute(Route):
    """The primaries of a Redis Cluster, by the slot of the key."""

    def __init__(self, label: str, hosts: list[tuple[str, int]], options: Mapping[str, Any]) -> None:
        super().__init__(label)
        self._hosts = list(hosts)
        """Those that were named, and those that were learned of: any of them knows the others."""
        self._options = dict(options)
        self.tls = self._options if options.get("ssl") else None
        self._map: SlotMap | None = None
        self._drawing = asyncio.Lock()

    async def _draw(self) -> SlotMap:
        async with asyncio.timeout(CONNECT_SECONDS):
            drawn = self._map = await draw(self._hosts, self._open)
        self._hosts += [host for host in sorted(drawn.hosts) if host not in self._hosts]
        return drawn

    def known_node(self, key: str) -> str | None:
        return None if self._map is None else self._map.node(key)

    async def node(self, key: str) -> str:
        if self._map is None:
            async with self._drawing:
                if self._map is None:
                    await self._draw()
        node = self.known_node(key)
        if node is None:
            raise RedisConnectionError(f"no server of the cluster covers {key}")
        return node

    async def connect(self, key: str) -> AbstractConnection:
        host, _, port = (await self.node(key)).rpartition(":")
        return await self._open((host, int(port)))

    async def _open(self, host: tuple[str, int]) -> AbstractConnection:
        class_ = tls.TlsConnection if self._options.get("ssl") else Connection
        options = {name: value for name, value in self._options.items() if name != "ssl"}
        return await _greet(class_(host=host[0], port=host[1], **{**options, **_owned(class_)}))

    async def refresh(self) -> None:
        """Draw the map anew; whoever asks meanwhile goes by the old one, which is right for most of the slots."""
        seen = self._map
        async with self._drawing:
            if seen is not None and self._map is seen:  # else somebody has just done so
                with contextlib.suppress(RedisError, OSError):  # the old one stays the best guess
                    await self._draw()


async def _greet(connection: AbstractConnection) -> AbstractConnection:
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            await connection.connect()  # type: ignore[no-untyped-call]  # redis-py leaves it untyped
    except BaseException as error:
        await connection.disconnect(nowait=True)
        if isinstance(error.__cause__, AuthenticationError):  # wrapped on unix sockets
            raise error.__cause__ from None
        if isinstance(error, GARBLED) and not isinstance(error, ConfigurationError):
            raise RedisConnectionError(f"what it says is no greeting: {error}") from error
        raise
    return connection


# Up to the last "@", since a password that was not percent-encoded may contain anything.
_USER_INFO: Final = re.compile(r"(?<=://)([^:@/]*):?.*@", re.DOTALL)
_PASSWORD_OPTION: Final = re.compile(r"([?&][^=&]*pass[^=&]*=)[^&]*", re.IGNORECASE)


def resolve(url: str | None) -> str:
    """Choose the address: the one given, else that of the environment, else the embedded server."""
    return url or os.environ.get(ENVIRONMENT) or f"embedded://{embedded.default_directory()}"


def masked(url: str) -> str:
    """Return `url` without its password, fit to be shown."""
    shown = _USER_INFO.sub(r"\1:***@", url)
    return _PASSWORD_OPTION.sub(r"\1***", shown)


def checked_url(url: str) -> str:
    """Return `url` if its scheme is known, else raise ConfigurationError."""
    scheme = url.partition("://")[0] if isinstance(url, str) and "://" in url else None
    if scheme not in SCHEMES.split(", "):
        raise ConfigurationError(
            f"{masked(str(url))!r} is not an address of Redis; use one of {SCHEMES}, as in redis://host:6379/0."
        )
    return url


def route_of_url(url: str) -> Route:
    """Make the route of a checked URL, for the running event loop."""
    label = masked(url)
    try:
        parts = urlsplit(url)
        match parts.scheme:
            case "embedded":
                path = unquote(parts.netloc + parts.path)
                return EmbeddedRoute(Path(path).absolute() if path else embedded.default_directory())
            case "redis+sentinel":
                service, _, db = parts.path.strip("/").partition("/")
                if not service:
                    raise ConfigurationError(f"{label} names no service; write redis+sentinel://host1,host2/service.")
                options = _options(parts.netloc, db) | _query(parts.query)
                return SentinelRoute(label, _hosts(parts.netloc, 26_379), service, options)
            case "redis+cluster":
                return ClusterRoute(
                    label, _hosts(parts.netloc, 6_379), _options(parts.netloc, "") | _query(parts.query)
                )
            case _:
                options = dict[str, Any](parse_url(re.sub(r"^valkey", "redis", url)))
                class_ = options.pop("connection_class", Connection)
                return DirectRoute(label, class_, _with_tls(options, on=issubclass(class_, SSLConnection)))
    except (ValueError, TypeError) as error:
        if isinstance(error, ConfigurationError):
            raise
        why = "percent-encode what is special in user and password" if "@" in url else str(error)
        raise ConfigurationError(f"{label} cannot be read as an address ({why}); use one of {SCHEMES}.") from None


def _hosts(netloc: str, default_port: int) -> list[tuple[str, int]]:
    hosts = []
    for entry in netloc.rpartition("@")[2].split(","):
        one = urlsplit(f"//{entry}")
        hosts.append((one.hostname or "localhost", one.port or default_port))
    return hosts


def _options(netloc: str, db: str) -> dict[str, Any]:
    user, _, password = netloc.rpartition("@")[0].partition(":")
    found: dict[str, Any] = {"username": unquote(user) or None, "password": unquote(password) or None}
    if db:
        found["db"] = int(db)
    return {name: value for name, value in found.items() if value is not None}


def _query(query: str) -> dict[str, Any]:
    options: dict[str, Any] = dict(parse_qsl(query))
    if "ssl" in options:
        options["ssl"] = options["ssl"].lower() in tls.YES
    return _with_tls(options, on=options.get("ssl", False))


def _with_tls(options: dict[str, Any], *, on: bool) -> dict[str, Any]:
    if on:
        return tls.settled(options)
    tls.refused_in_the_clear(options)
    return options


def route_of_client(client: redis_asyncio.Redis | redis_asyncio.RedisCluster) -> Route:
    """Make the route to where a caller's own client points.

    Only its address, credentials and TLS options are taken over. Connections are opened apart from its pool and
    follow aqueue's own policy, so that the client's automatic retries can never send a command twice.
    """
    if isinstance(client, redis_asyncio.RedisCluster):
        hosts = [(str(node.host), int(node.port)) for node in client.nodes_manager.startup_nodes.values()]
        return ClusterRoute("the given cluster client", hosts, _as_whom(client.connection_kwargs))
    pool = client.connection_pool
    return DirectRoute(
        f"the given client ({pool.connection_class.__name__})",
        pool.connection_class,
        _connecting(pool.connection_kwargs),
    )


def _as_whom(options: Mapping[str, Any]) -> dict[str, Any]:
    """Keep a cluster's credentials and TLS options, in the form in which a cluster client takes them."""
    names = ("username", "password", "credential_provider", "client_name")
    kept = {name: value for name, value in options.items() if name in names or name.startswith("ssl_")}
    if issubclass(options.get("connection_class", Connection), SSLConnection):
        kept["ssl"] = True
    return kept


def _connecting(options: Mapping[str, Any]) -> dict[str, Any]:
    """Keep what says where and as whom to connect; drop what a pool or its maintenance added."""
    dropped = (
        "maint_",
        "maintenance_",
        "oss_",
        "orig_",
        "event_dispatcher",
        "himport",
        "retry",
        "parser_class",
        "legacy_",
    )
    return {name: value for name, value in options.items() if not name.startswith(dropped)}
