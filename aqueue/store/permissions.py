"""What the server must permit a user, by what that user does with queues.

A script runs with the rights of whoever calls it, so a role is a list of scripts, and the commands are read out of
their texts: a script that changes takes its rights along. Beyond the scripts there are few commands.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from aqueue.store import scripts
from aqueue.store.keys import checked_name, escaped, pattern_of_all, pattern_of_channels, pattern_of_kind, registry_of

_COMMAND: Final = re.compile(r"redis\.p?call\('(\w+)'")


class Role(StrEnum):
    PRODUCER = "producer"
    WORKER = "worker"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Rights:
    """What one role does, beyond opening a connection; `kinds` are the kinds of keys it touches, () for all."""

    scripts: tuple[str, ...]
    commands: tuple[str, ...]
    kinds: tuple[str, ...] = ()


CONNECTION: Final = (
    "client|setname", "cluster|shards", "cluster|slots", "command", "evalsha", "eval", "info", "ping", "sadd", "select",
    "ssubscribe", "sunsubscribe",
)  # fmt: skip
"""To connect, to a Cluster too, where old versions of redis-py ask INFO; to call scripts; to make the queue known to
tools; to be told."""

PRODUCER: Final = Rights(
    (
        "acquire",
        "await",
        "cancel",
        "define",
        "describe",
        "enqueue",
        "expire",
        "inspect",
        "release_permit",
        "renew_permits",
        "reschedule",
        "schedules",
        "steer",
    ),
    (),
    (
        "job",
        "payload",
        "unique",
        "queued",
        "ranked",
        "scheduled",
        "held_back",
        "waiting",
        "permits",
        "pace",
        "holders",
        "passes",
        "line",
        "patience",
        "schedules",
        "user_made",
        "schedule",
        "changed",
        "shelf",
        "stats",
        "nowhere",
    ),
)
_WORKER_SCRIPTS: Final = ("extend", "promote", "prune", "reclaim", "retire", "settle_and_claim", "stats",
    "tick", "withdraw",
)  # fmt: skip
_OPERATOR_SCRIPTS: Final = (
    "delete", "examine", "list", "list_failed", "mend", "pause", "pause_task", "purge", "purge_failed", "readmit",
    "rerun", "resume", "resume_task", "stats",
)  # fmt: skip
RIGHTS: Final = {
    Role.PRODUCER: PRODUCER,
    # Jobs enqueue others and wait for them, so that a worker is a producer too; the rest is for parking and --check.
    Role.WORKER: Rights(
        (*PRODUCER.scripts, *_WORKER_SCRIPTS), ("blmove", "client|id", "client|unblock", "smembers")
    ),
    # The second half is for the doctor, who walks the key space. SCAN tells the names of all keys, and no more.
    Role.OPERATOR: Rights(
        (*PRODUCER.scripts, *_OPERATOR_SCRIPTS),
        (
            "info",
            "smembers",
            "time",
            "cluster|info",
            "exists",
            "lrange",
            "scan",
            "script|exists",
            "type",
            "zmscore",
            "zrange",
            "zscan",
        ),
    ),
}  # fmt: skip


def setuser(role: Role, user: str, prefix: str, password: str, *, durable: bool = False) -> str:
    """Write the command that makes a user with the least rights of a role.

    `password` is in the server's own form, `>text` or `#hash`; `durable` adds what confirmed enqueues take.
    Errors: ConfigurationError for a name that is none.
    """
    rights = RIGHTS[role]
    prefix = checked_name(prefix, "prefix")
    if rights.kinds:
        patterns = [pattern_of_kind(prefix, kind) for kind in rights.kinds] + [escaped(registry_of(prefix))]
    else:
        patterns = [pattern_of_all(prefix), escaped(registry_of(prefix))]
    asked = ("wait", "waitaof") if durable else ()  # older servers refuse a whole line for a command that they lack
    commands = sorted({*CONNECTION, *rights.commands, *asked, *_commands_of(rights.scripts)})
    words = [
        f"ACL SETUSER {checked_name(user, 'user')} reset on {password}",
        *(f"~{pattern}" for pattern in patterns),
        f"&{pattern_of_channels(prefix)}",
        *(f"+{command}" for command in commands),
    ]
    return " ".join(words)


def _commands_of(names: Iterable[str]) -> set[str]:
    return {command.lower() for name in names for command in _COMMAND.findall(scripts.load(name).text)}
