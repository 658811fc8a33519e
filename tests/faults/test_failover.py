"""A primary dies under load: the fleet follows its replica, and what the replica had is whole.

Replication is asynchronous, so what the primary had acknowledged and not passed on is gone, and what it had taken in
may run again. No test can say how much that is; each prints it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis

from aqueue import Settings
from faults.fleet import wait_until
from faults.load import FORGOTTEN, Load
from faults.topologies import BINARY, SLOT_BOUNDS, cluster_command, cluster_url, free_port, node, start_cluster

pytestmark = [pytest.mark.timeout(180), pytest.mark.chaos]

WATCHERS = 3


@dataclass
class Site:
    """A URL, and its servers by port: the primary of the test's queue first."""

    url: str
    servers: dict[int, redis.Redis]

    def kill(self, port: int) -> None:
        """End a server without a word; its own SHUTDOWN is tried again by redis-py for seconds, and returns late."""
        os.kill(int(dict(self.servers.pop(port).info("server"))["process_id"]), signal.SIGKILL)

    def primary(self) -> redis.Redis:
        """Give the server that has become the primary."""
        found: list[redis.Redis] = []

        def promoted() -> bool:
            found[:] = [one for one in self.servers.values() if dict(one.info("replication"))["role"] == "master"]
            return bool(found)

        wait_until(promoted, 60, "a replica is promoted")
        return found[0]


@pytest.fixture
def sentinel(tmp_path: Path) -> Iterator[Site]:
    with sentinel_site(tmp_path) as site:
        yield site


@contextmanager
def sentinel_site(tmp_path: Path, *, patience_ms: int = 500) -> Generator[Site]:
    """Run one primary, two replicas, and three sentinels of which two must agree."""
    with ExitStack() as stack:
        ports = [free_port() for _ in range(3)]
        follow = ("--replicaof", f"127.0.0.1 {ports[0]}", "--repl-diskless-sync-delay", "0")
        servers = {
            port: stack.enter_context(node(tmp_path / str(port), port, *(follow if port != ports[0] else ())))
            for port in ports
        }
        wait_until(partial(_feeds, servers[ports[0]], 2), 30, "both replicas are fed")
        watchers = [_start_watcher(stack, tmp_path, ports[0], patience_ms) for _ in range(WATCHERS)]
        for watcher in watchers:
            wait_until(partial(_knows_all, watcher), 30, "the sentinel knows the others")
        yield Site("redis+sentinel://" + ",".join(f"127.0.0.1:{port}" for port in watchers) + "/main", servers)


def _feeds(primary: redis.Redis, count: int) -> bool:
    """Have a write acknowledged by so many replicas: one that calls itself ready may still be sent nothing."""
    primary.set("{load}", "probe", ex=60)
    return int(primary.wait(count, 1_000)) == count


def _start_watcher(stack: ExitStack, directory: Path, primary: int, patience_ms: int) -> int:
    port = free_port()
    configuration = directory / f"sentinel-{port}.conf"
    configuration.write_text(
        f"port {port}\nsentinel monitor main 127.0.0.1 {primary} 2\n"
        f"sentinel down-after-milliseconds main {patience_ms}\nsentinel failover-timeout main 3000\n"
    )
    process = subprocess.Popen([BINARY, str(configuration), "--sentinel"], stdout=subprocess.DEVNULL)
    stack.callback(process.wait)
    stack.callback(process.kill)
    return port


def _knows_all(port: int) -> bool:
    try:
        with redis.Redis(port=port, decode_responses=True) as client:
            masters: Any = client.sentinel_masters()  # redis-py's two kinds of reply leave its type open
            (state,) = masters.values()
            return (state["num-slaves"], state["num-other-sentinels"]) == (2, WATCHERS - 1)
    except redis.RedisError:
        return False


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Site]:
    with cluster_site(tmp_path) as site:
        yield site


@contextmanager
def cluster_site(tmp_path: Path, *, patience_ms: int = 1000) -> Generator[Site]:
    """Run three primaries with a third of the slots each, and a replica for each."""
    with ExitStack() as stack:
        patience = ("--cluster-node-timeout", str(patience_ms))
        servers = start_cluster(stack, tmp_path, 6, *patience, "--repl-diskless-sync-delay", "0")
        ports = list(servers)
        for primary, replica in zip(ports[:3], ports[3:], strict=True):
            cluster_command(servers[replica], "REPLICATE", cluster_command(servers[primary], "MYID"))
        slot = int(cluster_command(servers[ports[0]], "KEYSLOT", "{load}"))
        owner = next(n for n in range(3) if slot < SLOT_BOUNDS[n + 1])
        wait_until(partial(_feeds, servers[ports[owner]], 1), 30, "the replica is fed")
        own = {port: servers[port] for port in (ports[owner], ports[3 + owner])}
        yield Site(cluster_url(ports), own)


async def _survives(site: Site) -> None:
    async with Load(site.url, settings=Settings(lease=2)) as load, load.worker():
        await load.more()
        await asyncio.to_thread(site.kill, next(iter(site.servers)))
        raw = await asyncio.to_thread(site.primary)
        await load.more()
        found = await load.wrong(raw)
        lost = [complaint for complaint in found if "acknowledged and is nowhere" in complaint]
        print(f"{load.history.asked} jobs asked for, {len(load.history.acknowledged)} acknowledged, {len(lost)} lost, "
              f"{len(load.refusals)} refusals")  # fmt: skip
        assert [complaint for complaint in found if not any(word in complaint for word in FORGOTTEN)] == []


async def test_the_fleet_follows_a_sentinel_failover_under_load(sentinel: Site) -> None:
    """Three sentinels agree that the primary is dead and promote one of two replicas."""
    await _survives(sentinel)


async def test_the_fleet_follows_a_cluster_failover_under_load(cluster: Site) -> None:
    """The node that holds the queue's slot dies, and its replica takes the slot over."""
    await _survives(cluster)
