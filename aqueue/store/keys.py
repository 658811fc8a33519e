"""The only place where a Redis key is spelled.

Every key of a queue carries the queue's name in braces, so that Redis Cluster keeps them in one slot and a
script may touch them all. `docs/data-model.md` says what each key holds; a test compares the two.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Mapping
from functools import cached_property
from typing import Final

from aqueue.errors import ConfigurationError, shown
from aqueue.job import JobId, QueueName, WorkerId

MAX_NAME_LENGTH = 200
"""Names are part of every key; beyond this they cost more than they say."""

TICKET = "wake"
"""An element of the queued list that names no job: it only wakes one parked worker. Ids are longer."""


def checked_name(name: str, what: str) -> str:
    """Return `name` if it may be part of a key, else raise ConfigurationError."""
    if not isinstance(name, str) or not name or len(name) > MAX_NAME_LENGTH:
        raise ConfigurationError(f"{what} must be text of 1 to {MAX_NAME_LENGTH} characters, not {shown(name)}.")
    if not is_name(name):
        raise ConfigurationError(
            f"{what} must not contain braces, spaces or control characters, as {shown(name)} does; "
            "use letters, digits, '.', '-', '_' or ':'."
        )
    return name


def is_name(name: str) -> bool:
    """Say whether a text may be part of a key."""
    fits = 0 < len(name) <= MAX_NAME_LENGTH
    return fits and not any(c in "{}" or c.isspace() or unicodedata.category(c).startswith("C") for c in name)


class Keys:
    """The keys of one queue."""

    def __init__(self, prefix: str, queue: QueueName) -> None:
        self.prefix = checked_name(prefix, "prefix")
        self.queue = queue
        self.base = f"{self.prefix}:{{{checked_name(queue, 'queue name')}}}:"
        """What a script starts from to build the key of a record whose id it has just learned."""

    def job(self, job_id: JobId) -> str:
        """Hash: state, counters, instants, token, result or error. Lives until its TTL after the end."""
        return f"{self.base}job:{job_id}"

    def payload(self, job_id: JobId) -> str:
        """String: the envelope. Lives until the job completes, else as long as the job's hash."""
        return f"{self.base}payload:{job_id}"

    def unique(self, digest: str) -> str:
        """String: id of the unfinished job that holds the user's key. Lives as long as that job is unfinished."""
        return f"{self.base}unique:{digest}"

    @cached_property
    def queued(self) -> str:
        """List: ids in order, oldest at the right; may hold tickets and ids of jobs cancelled meanwhile."""
        return f"{self.base}queued"

    @cached_property
    def suspects(self) -> str:
        """List: queued jobs that are one crash away from the limit."""
        return f"{self.base}suspects"

    @cached_property
    def ranked(self) -> str:
        """Sorted set: queued jobs of other priorities than the usual, by rank and since when they wait."""
        return f"{self.base}ranked"

    @cached_property
    def held_back(self) -> str:
        """Sorted set: queued jobs that wait before a closed gate, all of them."""
        return f"{self.base}held_back"

    @property
    def places(self) -> tuple[str, str, str, str]:
        """Where jobs wait for their start."""
        return self.queued, self.suspects, self.ranked, self.held_back

    @cached_property
    def shelves(self) -> str:
        """Hash: task to the instant since when it is paused, or 0 once its shelf is to be emptied. Capped."""
        return f"{self.base}shelves"

    def shelf(self, task: str) -> str:
        """Sorted set: the queued jobs of a paused task, by their places. Emptied by claims once it is resumed."""
        return f"{self.base}shelf:{task}"

    def waiting(self, digest: str) -> str:
        """Sorted set: the jobs that wait before one gate, oldest first."""
        return f"{self.base}waiting:{digest}"

    def permits(self, digest: str) -> str:
        """Set: ids of the jobs that one gate has let in and that have not left."""
        return f"{self.base}permits:{digest}"

    def pace(self, digest: str) -> str:
        """String or sorted set: when one gate let jobs through. Expires once that no longer matters."""
        return f"{self.base}pace:{digest}"

    def holders(self, digest: str) -> str:
        """Sorted set: who holds the permits of one limiter, by when each ends, server ms. Expires with the last."""
        return f"{self.base}holders:{digest}"

    def passes(self, digest: str) -> str:
        """Sorted set: who has passed one limiter of late, by when, server ms. Expires."""
        return f"{self.base}passes:{digest}"

    def line(self, digest: str) -> str:
        """Sorted set: who waits before one limiter, or is to come back, by since when, server ms. Expires."""
        return f"{self.base}line:{digest}"

    def patience(self, digest: str) -> str:
        """Sorted set: the same, by until when each is believed to be there, server ms. Expires."""
        return f"{self.base}patience:{digest}"

    @cached_property
    def schedules(self) -> str:
        """Sorted set: schedules of the code by their next slot, server ms."""
        return f"{self.base}schedules"

    @cached_property
    def user_made(self) -> str:
        """Sorted set: schedules that users have made at run time, by their next slot, server ms."""
        return f"{self.base}user_made"

    def schedule(self, schedule_id: str) -> str:
        """Hash: one schedule, its last slot and that slot's job. Removed with its code, or by users; or it ends."""
        return f"{self.base}schedule:{schedule_id}"

    @cached_property
    def changed(self) -> str:
        """String: which change of a schedule was the last, for workers that did not hear of it. Expires."""
        return f"{self.base}changed"

    @cached_property
    def timers(self) -> str:
        """Sorted set: gates before which jobs wait, by when the next may pass."""
        return f"{self.base}timers"

    @cached_property
    def scheduled(self) -> str:
        """Sorted set: id by due time, server ms."""
        return f"{self.base}scheduled"

    @cached_property
    def workers(self) -> str:
        """Sorted set: worker incarnation by lease deadline, server ms."""
        return f"{self.base}workers"

    def worker(self, worker: WorkerId) -> str:
        """Hash: what one incarnation says of itself, its last turn and the suspect it runs. Reclaim removes it."""
        return f"{self.base}worker:{worker}"

    def inbox(self, worker: WorkerId) -> str:
        """List: what BLMOVE caught and no claim has adopted yet. Claim or reclaim empties it."""
        return f"{self.base}inbox:{worker}"

    def held(self, worker: WorkerId) -> str:
        """Hash: id to token of the jobs that one incarnation runs. Settle or reclaim empties it."""
        return f"{self.base}held:{worker}"

    @cached_property
    def failed(self) -> str:
        """Sorted set: id of a failed job by the instant at which its record goes. Capped and pruned."""
        return f"{self.base}failed"

    @cached_property
    def pruned(self) -> str:
        """String: present while the last prune is recent. Expires."""
        return f"{self.base}pruned"

    @cached_property
    def paused(self) -> str:
        """String: present while the queue is paused."""
        return f"{self.base}paused"

    @cached_property
    def stats(self) -> str:
        """Hash: counters since the queue was first used."""
        return f"{self.base}stats"

    @cached_property
    def nowhere(self) -> str:
        """None: nothing is ever stored there. Named so that no script runs on a part of the queue; see scripts.py."""
        return nowhere(self.base)

    def channel(self, subscriber: str) -> str:
        """Sharded channel on which one process hears of ended jobs, or one worker of cancels and resumes."""
        return f"{self.base}channel:{subscriber}"

    @cached_property
    def bell(self) -> str:
        """Sharded channel on which all workers hear that a schedule was changed."""
        return self.channel("schedules")

    @property
    def registry(self) -> str:
        """Set: names of all queues ever used. The one key outside the queues' slots."""
        return registry_of(self.prefix)


TYPES: Final[Mapping[str, tuple[str, ...]]] = {
    "job": ("hash",),
    "payload": ("string",),
    "unique": ("string",),
    "queued": ("list",),
    "suspects": ("list",),
    "ranked": ("zset",),
    "held_back": ("zset",),
    "shelves": ("hash",),
    "shelf": ("zset",),
    "waiting": ("zset",),
    "permits": ("set",),
    "pace": ("string", "zset"),
    "holders": ("zset",),
    "passes": ("zset",),
    "line": ("zset",),
    "patience": ("zset",),
    "timers": ("zset",),
    "schedules": ("zset",),
    "user_made": ("zset",),
    "schedule": ("hash",),
    "changed": ("string",),
    "scheduled": ("zset",),
    "workers": ("zset",),
    "worker": ("hash",),
    "inbox": ("list",),
    "held": ("hash",),
    "failed": ("zset",),
    "pruned": ("string",),
    "paused": ("string",),
    "stats": ("hash",),
}
"""What the server calls the type of each kind of key."""
GATES: Final = ("waiting", "permits", "pace", "shelf", "holders", "passes", "line", "patience")
"""The kinds of keys of which each gate, each paused task or each limiter has its own."""


def nowhere(base: str) -> str:
    """Spell the key of a queue that never exists; see Keys.nowhere."""
    return f"{base}nowhere"


def unique_digest(task: str, key: str) -> str:
    """Name the unique key of `key` within one task."""
    return hashlib.sha256(f"{task}\0{key}".encode("utf-8", "backslashreplace")).hexdigest()[:32]


def gate_digest(kind: str, name: str, value: str) -> str:
    """Name the gate of one limit, for one value of the argument that it goes by."""
    return hashlib.sha256(f"{kind}\0{name}\0{value}".encode("utf-8", "backslashreplace")).hexdigest()[:32]


def registry_of(prefix: str) -> str:
    """Spell the one key outside the queues' slots; see Keys.registry."""
    return f"{prefix}:queues"


def escaped(name: str) -> str:
    """Write a name so that a glob pattern matches it alone."""
    return re.sub(r"([*?\[\]\\^-])", r"\\\1", name)


def pattern_of_all(prefix: str) -> str:
    """Give the glob pattern that all keys of all queues match."""
    return f"{escaped(prefix)}:{{*"


def pattern_of_kind(prefix: str, kind: str) -> str:
    """Give the glob pattern that the keys of one kind match, on all queues."""
    one_per_queue = kind in vars(Keys) and isinstance(vars(Keys)[kind], cached_property)
    return f"{escaped(prefix)}:{{*}}:{kind}" + ("" if one_per_queue else ":*")


def pattern_of_channels(prefix: str) -> str:
    """Give the glob pattern that the channels of all queues match."""
    return f"{escaped(prefix)}:{{*}}:channel:*"


def parts_of(prefix: str, key: str) -> tuple[QueueName, str, str] | None:
    """Read queue, kind and rest of a queue's key; the rest is empty where the kind says it all."""
    if not key.startswith(f"{prefix}:{{"):
        return None
    queue, braced, below = key.removeprefix(f"{prefix}:{{").partition("}:")
    kind, _, rest = below.partition(":")
    return (QueueName(queue), kind, rest) if braced else None
