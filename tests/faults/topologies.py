"""Servers of one fleet on ports of loopback: what Sentinel and Cluster are made of."""

from __future__ import annotations

import os
import random
import socket
import subprocess
from collections.abc import Generator, Iterable
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import redis
from servers import binaries

from faults.fleet import wait_until

SLOT_BOUNDS = (0, 5461, 10923, 16384)
"""Of three nodes that share the slots."""
BINARY = next(iter(binaries().values()))


BUS = 10_000
"""So much higher than its port a node of a Cluster listens for the others."""
SHARE = 500
_number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % (BUS // SHARE)
_ports = random.SystemRandom().sample(range(BUS + _number * SHARE, BUS + (_number + 1) * SHARE), SHARE)


def free_port() -> int:
    """Give a port that stays free: below those of outgoing connections, to this process, and only once."""
    while True:
        port = _ports.pop()
        if _is_free(port) and _is_free(port + BUS):
            return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@contextmanager
def node(directory: Path, port: int, *options: str) -> Generator[redis.Redis]:
    """Run one server on a port of loopback."""
    directory.mkdir()
    process = subprocess.Popen(
        [BINARY, *options, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(directory), "--save", ""],
        stdout=subprocess.DEVNULL,
    )
    try:
        with redis.Redis(port=port, decode_responses=True) as client:

            def answers() -> bool:
                try:
                    return bool(client.ping())
                except redis.RedisError:
                    return False

            wait_until(answers, 30, f"the server at {port} answers")
            yield client
    finally:
        process.kill()
        process.wait()


def cluster_command(client: redis.Redis, *command: str | int) -> str:
    return str(client.execute_command("CLUSTER", *command))  # type: ignore[no-untyped-call]  # redis-py leaves it so


def start_cluster(stack: ExitStack, directory: Path, count: int, *options: str) -> dict[int, redis.Redis]:
    """Start nodes and have them meet, the first three with a third of the slots each; give their clients by port."""
    ports = [free_port() for _ in range(count)]
    words = ("--cluster-enabled", "yes", *options)
    clients = {port: stack.enter_context(node(directory / str(port), port, *words)) for port in ports}
    for port, first, end in zip(ports, SLOT_BOUNDS, SLOT_BOUNDS[1:], strict=False):
        cluster_command(clients[port], "ADDSLOTSRANGE", first, end - 1)
    for port in ports[1:]:
        cluster_command(clients[ports[0]], "MEET", "127.0.0.1", port)
    for client in clients.values():
        wait_until(partial(is_whole, client, count), 60, "the cluster is whole")
    return clients


def cluster_url(ports: Iterable[int]) -> str:
    return "redis+cluster://" + ",".join(f"127.0.0.1:{port}" for port in ports)


def is_whole(client: redis.Redis, nodes: int) -> bool:
    """Say whether this node has met the others and sees all slots served."""
    return (
        "cluster_state:ok" in cluster_command(client, "INFO")
        and cluster_command(client, "NODES").count(" connected") == nodes
    )
