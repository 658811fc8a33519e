"""A slot of a Cluster that a test moves step by step, and may leave where it is, on two nodes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import redis

from faults.topologies import cluster_command

BATCH = 50
ALL = 1_000_000


@dataclass
class MovingSlot:
    """The slot of one queue, from when it is on the move."""

    slot: int
    source: redis.Redis
    target: redis.Redis
    nodes: list[redis.Redis]

    def begin(self) -> None:
        cluster_command(self.target, "SETSLOT", self.slot, "IMPORTING", cluster_command(self.source, "MYID"))
        cluster_command(self.source, "SETSLOT", self.slot, "MIGRATING", cluster_command(self.target, "MYID"))

    def left(self) -> list[str]:
        """List what the source has still."""
        return [str(key) for key in self._ask(self.source, "CLUSTER", "GETKEYSINSLOT", self.slot, ALL)]

    def carry(self, wanted: Callable[[str], bool] = lambda _: True) -> int:
        """Move the keys that are wanted, in batches; return how many."""
        port, keys = self.target.connection_pool.connection_kwargs["port"], [key for key in self.left() if wanted(key)]
        for first in range(0, len(keys), BATCH):
            self._ask(
                self.source, "MIGRATE", "127.0.0.1", port, "", 0, 5000, "KEYS", *keys[first : first + BATCH]
            )  # fmt: skip
        return len(keys)

    def end(self) -> None:
        """Carry what is left, and give the slot away."""
        while self.carry():
            pass
        target = cluster_command(self.target, "MYID")
        for node in (self.target, self.source, *self.nodes):
            cluster_command(node, "SETSLOT", self.slot, "NODE", target)

    def refusals(self) -> Counter[str]:
        """Count the errors that the two nodes have sent, by their first word."""
        found: Counter[str] = Counter()
        for node in (self.source, self.target):
            for name, stat in dict(node.info("errorstats")).items():
                found[name.removeprefix("errorstat_")] += int(stat["count"])
        return found

    def contents(self) -> dict[str, bytes]:
        """Read every key of the slot, wherever it lies, in the server's own form."""
        found: dict[str, bytes] = {}
        for node in (self.source, self.target):
            options = {**node.connection_pool.connection_kwargs, "decode_responses": False}
            with redis.Redis(port=options["port"]) as plain:
                for key in self._ask(plain, "CLUSTER", "GETKEYSINSLOT", self.slot, ALL):
                    name = key.decode()
                    assert name not in found, f"{name} lies on both nodes"
                    # An importing node answers for keys of the slot only to who was sent by the other one.
                    with plain.pipeline(transaction=False) as row:
                        row.execute_command("ASKING")
                        row.dump(key)
                        found[name] = row.execute()[1]
        return found

    @staticmethod
    def _ask(node: redis.Redis, *command: Any) -> Any:
        return node.execute_command(*command)  # type: ignore[no-untyped-call]  # redis-py leaves it so


def slots_of(node: redis.Redis) -> set[int]:
    """Read which slots a node has."""
    (mine,) = [line for line in cluster_command(node, "NODES").splitlines() if "myself" in line]
    found: set[int] = set()
    for word in mine.split()[8:]:
        if "[" not in word:
            low, _, high = word.partition("-")
            found.update(range(int(low), int(high or low) + 1))
    return found


@contextmanager
def moving(cluster: str, queue: str) -> Generator[MovingSlot]:
    """Give the slot of a queue, and the next node for its new one."""
    ports = [int(host.rpartition(":")[2]) for host in cluster.removeprefix("redis+cluster://").split(",")]
    nodes = [redis.Redis(port=port, decode_responses=True) for port in ports]
    slot = int(cluster_command(nodes[0], "KEYSLOT", f"{{{queue}}}"))
    owner = next(n for n, node in enumerate(nodes) if slot in slots_of(node))
    source, target = nodes[owner], nodes[(owner + 1) % 3]
    try:
        yield MovingSlot(slot, source, target, [node for node in nodes if node not in (source, target)])
    finally:
        for node in nodes:
            node.close()
