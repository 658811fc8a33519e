"""Which keys of a store have no right to be there.

Every key must either expire by itself, or be one of a bounded number, or belong to a job that has not ended.
"""

from __future__ import annotations

import redis

BOUNDED = (
    "queues", "stats", "paused", "queued", "ranked", "scheduled", "suspects", "failed", "held_back", "timers",
    "schedules", "user_made", "shelves",
)  # fmt: skip
UNFINISHED = {"scheduled", "queued", "running"}


def leaks(client: redis.Redis, prefix: str = "aqueue") -> list[str]:
    """List the keys that would stay for ever, with the reason."""
    found = []
    for key in map(str, client.scan_iter(f"{prefix}:*", count=1000)):
        if client.ttl(key) != -1:
            continue
        base, braced, name = key.rpartition("}:")
        kind, _, rest = (name if braced else key.partition(":")[2]).partition(":")
        if kind in BOUNDED and not rest:
            continue
        if kind == "workers":
            continue
        holder = str(client.get(key)) if kind == "unique" else rest
        record = f"{base}}}:job:{holder}"
        if kind in ("job", "payload", "unique") and client.hget(record, "state") in UNFINISHED:
            continue
        if kind == "schedule" and any(
            client.zscore(f"{base}}}:{index}", rest) is not None for index in ("schedules", "user_made")
        ):
            continue
        if kind in ("worker", "held", "inbox") and client.zscore(f"{base}}}:workers", rest) is not None:
            continue
        if kind in ("waiting", "permits", "shelf") and _holds_unfinished(client, base, key, kind, rest):
            continue
        found.append(f"{key} ({client.type(key)!r})")
    return found


def _holds_unfinished(client: redis.Redis, base: str, key: str, kind: str, rest: str) -> bool:
    if kind == "shelf" and not client.hexists(f"{base}}}:shelves", rest):  # no claim and no resume will look there
        return False
    members = client.smembers(key) if kind == "permits" else client.zrange(key, 0, -1)
    return all(client.hget(f"{base}}}:job:{member}", "state") in UNFINISHED for member in map(str, members))
