"""Servers of one fleet on ports of loopback: what Sentinel and Cluster are made of."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import redis
from servers import binaries

from faults.fleet import wait_until

BINARY = next(iter(binaries().values()))


def free_port() -> int:
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if port < 55_000:  # a cluster bus listens 10,000 higher
            return port


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

            wait_until(answers, 10, f"the server at {port} answers")
            yield client
    finally:
        process.kill()
        process.wait()


def cluster_command(client: redis.Redis, *command: str | int) -> str:
    return str(client.execute_command("CLUSTER", *command))  # type: ignore[no-untyped-call]  # redis-py leaves it so


def is_whole(client: redis.Redis, nodes: int) -> bool:
    """Say whether this node has met the others and sees all slots served."""
    return (
        "cluster_state:ok" in cluster_command(client, "INFO")
        and cluster_command(client, "NODES").count(" connected") == nodes
    )
