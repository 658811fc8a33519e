"""From a URL to a route: every form that is documented, and no secret in what is shown."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio as redis_asyncio
from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection

from aqueue import embedded
from aqueue.errors import ConfigurationError
from aqueue.store.address import (
    ClusterRoute,
    DirectRoute,
    EmbeddedRoute,
    SentinelRoute,
    checked_url,
    masked,
    resolve,
    route_of_client,
    route_of_url,
)
from aqueue.store.tls import TlsConnection

OURS = {"socket_timeout": None, "retry_on_timeout": False, "health_check_interval": 0, "protocol": 3}

VERIFIED = {"ssl_cert_reqs": "required", "ssl_check_hostname": True}


@pytest.mark.parametrize(
    ("url", "class_", "expected"),
    [
        ("redis://h", Connection, {"host": "h"}),
        ("redis://h:1234/5", Connection, {"host": "h", "port": 1234, "db": 5}),
        ("redis://u:p%40ss@h:1/0", Connection, {"username": "u", "password": "p@ss", "port": 1}),
        ("redis://:p@[::1]:1", Connection, {"host": "::1", "password": "p"}),
        ("valkey://h:1/2", Connection, {"host": "h", "port": 1, "db": 2}),
        ("rediss://h", SSLConnection, {"host": "h", **VERIFIED}),
        ("valkeys://valkey.example:1", SSLConnection, {"host": "valkey.example", "port": 1}),
        ("unix:///run/redis.sock", UnixDomainSocketConnection, {"path": "/run/redis.sock"}),
        ("unix:///run/redis.sock?db=3", UnixDomainSocketConnection, {"path": "/run/redis.sock", "db": 3}),
        ("redis://h?socket_timeout=99&retry_on_timeout=yes", Connection, {"host": "h"}),
    ],
)
def test_a_url_of_one_server_is_read(url: str, class_: type, expected: dict[str, Any]) -> None:
    """All that redis-py reads, and valkey's names for it; time-outs and retries stay ours."""
    route = route_of_url(checked_url(url))
    assert isinstance(route, DirectRoute)
    assert route._class in (class_, TlsConnection)
    assert issubclass(route._class, class_)
    assert {**expected, **OURS}.items() <= route._options.items()
    assert route._options["retry"]._retries == 0


@pytest.mark.parametrize(
    ("url", "hosts", "service", "expected"),
    [
        ("redis+sentinel://a,b:1/main", [("a", 26379), ("b", 1)], "main", {}),
        ("redis+sentinel://u:s%2Fx@a/main/4", [("a", 26379)], "main", {"username": "u", "password": "s/x", "db": 4}),
        ("redis+sentinel://:s@a/main/", [("a", 26379)], "main", {"password": "s"}),
        ("redis+sentinel://[::1]:7,[::2]/main", [("::1", 7), ("::2", 26379)], "main", {}),
    ],
)
def test_a_url_of_sentinels_is_read(
    url: str, hosts: list[tuple[str, int]], service: str, expected: dict[str, Any]
) -> None:
    """The password is the primary's; sentinels of a private network have none."""
    route = route_of_url(checked_url(url))
    assert isinstance(route, SentinelRoute)
    asked = [sentinel.connection_pool.connection_kwargs for sentinel in route._sentinel.sentinels]
    assert [(one["host"], one["port"]) for one in asked] == hosts
    assert route._service == service
    assert {**expected, **OURS}.items() <= route._options.items()


def test_tls_behind_sentinels_is_not_dropped() -> None:
    """To connect in the clear although TLS was asked for is the worst of all answers."""
    route = route_of_url("redis+sentinel://a/main?ssl=true")
    assert isinstance(route, SentinelRoute)
    assert route._class is TlsConnection
    assert VERIFIED.items() <= route._options.items()
    (sentinel,) = route._sentinel.sentinels
    assert sentinel.connection_pool.connection_class is SSLConnection
    assert VERIFIED.items() <= sentinel.connection_pool.connection_kwargs.items()


@pytest.mark.parametrize(
    ("url", "hosts", "expected"),
    [
        ("redis+cluster://a,b:1", [("a", 6379), ("b", 1)], {}),
        ("redis+cluster://u:p@a?ssl=true", [("a", 6379)], {"username": "u", "password": "p", "ssl": True, **VERIFIED}),
        ("redis+cluster://[::1]:7", [("::1", 7)], {}),
    ],
)
def test_a_url_of_a_cluster_is_read(url: str, hosts: list[tuple[str, int]], expected: dict[str, Any]) -> None:
    """Any of its servers will do to learn of the others."""
    route = route_of_url(checked_url(url))
    assert isinstance(route, ClusterRoute)
    assert route._hosts == hosts
    assert route._options == expected


def test_an_embedded_url_names_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative to where the program runs, or absolute, or the default."""
    monkeypatch.chdir(tmp_path)
    found = {}
    for url in ("embedded://", "embedded://data", "embedded:///var/data", "embedded://with%20space"):
        route = route_of_url(checked_url(url))
        assert isinstance(route, EmbeddedRoute)
        found[url] = route._directory
    assert list(found.values()) == [
        embedded.default_directory(), tmp_path / "data", Path("/var/data"), tmp_path / "with space",
    ]  # fmt: skip


def test_the_address_comes_from_the_argument_then_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """And without either it is the development server."""
    monkeypatch.setenv("AQUEUE_URL", "redis://environment")
    assert resolve("redis://argument") == "redis://argument"
    assert resolve(None) == "redis://environment"
    monkeypatch.setenv("AQUEUE_URL", "")
    assert resolve(None).startswith("embedded://")
    monkeypatch.delenv("AQUEUE_URL")
    assert resolve(None).startswith("embedded://")


SECRET_URLS = (
    "redis://:secret@h:1/0", "redis://u:secret@h", "rediss://u:secret@h/0?x=1", "unix://u:secret@/run/s",
    "redis://h?password=secret", "redis://h?x=1&PASSWORD=secret&y=2", "unix:///s?password=secret",
    "redis+sentinel://u:secret@a:1,b:2/main", "redis+cluster://:secret@a,b", "redis://u:secret/x@h", "redis://u:sec/secret@h",
    "redis://u:secret#x@h", "redis://u:x?secret@h", "redis://u:x@secret@h", "redis://:secret@[::1]:1", "http://u:secret@h",
)  # fmt: skip


@pytest.mark.parametrize("url", SECRET_URLS)
def test_no_password_is_shown(url: str) -> None:
    """Labels go to logs and tickets; people forget to percent-encode."""
    assert "secret" not in masked(url)
    assert "***" in masked(url)
    with suppress(ConfigurationError):
        assert "secret" not in route_of_url(checked_url(url)).label


@pytest.mark.parametrize(
    "url", ["redis://u:secret/x@h", "redis://u:sec/secret@h", "redis://u:x?secret@h", "http://u:secret@h"]
)
def test_a_refusal_shows_no_password_either(url: str) -> None:
    """Nor does the error of the library beneath, which quotes what it could not read."""
    with pytest.raises(ConfigurationError) as caught:
        route_of_url(checked_url(url))
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "url", ["redis://h:1/0", "unix:///run/s", "embedded:///home/me", "redis+cluster://a,b?ssl=true"]
)
def test_an_address_without_a_password_is_shown_as_it_is(url: str) -> None:
    """What is shown must be what can be copied."""
    assert masked(url) == url


@pytest.mark.parametrize("url", ["", "redis", "host:6379", "http://h", "redis:/h", "REDIS//h", "redis+sentinal://h/s"])
def test_an_unknown_scheme_is_refused(url: str) -> None:
    """At the Queue, and with an example to copy."""
    with pytest.raises(ConfigurationError, match="redis://host:6379/0"):
        checked_url(url)


@pytest.mark.parametrize(
    "url",
    ["redis://h:x", "redis+sentinel://h", "redis+sentinel://h:x/s", "redis+sentinel://h/s/x", "redis+cluster://h:x"],
)
def test_an_unreadable_address_is_refused(url: str) -> None:
    """With the address in the message, since it may come from a settings file."""
    with pytest.raises(ConfigurationError, match=r"redis.*://h"):
        route_of_url(url)


def test_a_given_client_lends_its_address_and_not_its_retries() -> None:
    """redis-py sends commands again on its own, which for a queue means a job taken twice."""
    client = redis_asyncio.Redis(
        host="h", port=1, db=2, username="u", password="p", socket_timeout=1,
        health_check_interval=5, decode_responses=True, client_name="mine",
    )  # fmt: skip
    route = route_of_client(client)
    assert isinstance(route, DirectRoute)
    expected = {"host": "h", "port": 1, "db": 2, "username": "u", "password": "p", "client_name": "mine"}
    assert {**expected, **OURS, "decode_responses": False}.items() <= route._options.items()
    assert route._options["retry"]._retries == 0
    assert "p" not in route.label.replace("given", "").split()


def test_a_given_cluster_client_lends_its_credentials_and_its_tls() -> None:
    """Left out, the first connection would be refused, or worse, be plain text."""
    client = redis_asyncio.RedisCluster(
        host="h", port=1, username="u", password="p", ssl=True, ssl_ca_certs="/ca.pem", socket_timeout=1
    )
    route = route_of_client(client)
    assert isinstance(route, ClusterRoute)
    assert route._hosts == [("h", 1)]
    expected = {"username": "u", "password": "p", "ssl": True, "ssl_ca_certs": "/ca.pem"}
    assert expected.items() <= route._options.items()
    assert not {"socket_timeout", "connection_class", "retry"} & route._options.keys()
    redis_asyncio.RedisCluster(host="h", **route._options)  # it takes every one of them
