"""Faults are about processes and connections, not about the server's make: one of them will do here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack

import pytest
import redis
from servers import Server, binaries

from faults.laboratory import Laboratory
from faults.proxy import Proxy
from faults.topologies import cluster_url, start_cluster


@pytest.fixture
def engine() -> str:
    return next(iter(binaries()))


IMPATIENT: dict[str, object] = {
    "aqueue.limiters.RECHECK_SECONDS": 0.25,
    "aqueue.settings.Settings.beat": property(lambda _: 0.05),
    "aqueue.store.address.CONNECT_SECONDS": 0.25,
    "aqueue.store.client.PARK_MARGIN_SECONDS": 0.25,
    "aqueue.store.connection.PATIENCE_SECONDS": 1.0,
    "aqueue.store.link.Link.call.__kwdefaults__": {"timeout": 0.25},
    "aqueue.store.link.REPLY_SECONDS": 0.25,
    "aqueue.store.mailbox.MAX_PAUSE_SECONDS": 0.2,
    "aqueue.store.waiting.RECHECK_SECONDS": 0.25,
    "aqueue.worker.ear.MAX_PAUSE_SECONDS": 0.2,
    "aqueue.worker.lane.MAX_RECOVERY_PAUSE_SECONDS": 0.1,
    "aqueue.worker.parking.DOUBT_SECONDS": 0.45,
    "aqueue.worker.parking.FAILED_SECONDS": 0.05,
    "aqueue.worker.parking.PARK_SECONDS": 0.2,
    "aqueue.worker.lane.RECOVERY_PAUSE_SECONDS": 0.02,
    "aqueue.worker.maintenance.RECLAIM_JITTER_SECONDS": 0.02,
    "aqueue.worker.maintenance.RETRY_SECONDS": 0.1,
}
"""Waits for a server that says nothing, a twentieth as long as users have them; what follows is the same."""


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every wait end soon, so that hundreds of faults can be tried."""
    for name, value in IMPATIENT.items():
        monkeypatch.setattr(name, value)


@pytest.fixture(scope="session")
def running_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[int, redis.Redis]]:
    """Three primaries that share the slots; a cluster takes seconds to start."""
    with ExitStack() as stack:
        yield start_cluster(stack, tmp_path_factory.mktemp("cluster"), 3, "--cluster-node-timeout", "2000")


@pytest.fixture
def cluster(running_cluster: dict[int, redis.Redis]) -> Iterator[str]:
    """The address of a cluster, empty. Which node has which slot depends on the tests before."""
    yield cluster_url(running_cluster)
    for node in running_cluster.values():
        node.flushall()


@pytest.fixture
async def laboratory(server: Server, raw: redis.Redis) -> AsyncIterator[Laboratory]:
    yield Laboratory(server, raw)
    for key in raw.scan_iter("aqueue:*"):  # what a worker could not take along; the history has been checked
        raw.delete(key)


@pytest.fixture
async def proxy(server: Server) -> AsyncIterator[Proxy]:
    async with Proxy(server.socket) as proxy:
        yield proxy


@pytest.fixture
def raw_own(own_server: Server) -> Iterator[redis.Redis]:
    """A plain client of the test's own server."""
    with own_server.client() as client:
        yield client
