"""The whole store of one queue as plain data: written before a transition, read and compared after it.

An image maps a key's short name to what it holds. Lists read oldest first, that is from the right. Instants are
whole seconds from the moment of the seed, and lie on multiples of ten: an instant that a script takes from the
server's clock a little later reads as the multiple before it, and anything else shows up as odd milliseconds.
The lifetimes of keys stand under `ttl`. What is empty does not exist. A job's history is a
list here, the last run first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias, cast

import redis

Image: TypeAlias = dict[str, Any]

BASE = "aqueue:{q}:"
REGISTRY = "aqueue:queues"
SECONDS_PER_STEP = 10
CLOCK_SLACK_MS = 5
"""A key's lifetime counts from the start of its script, a hair before the script reads the clock."""

LISTS = ("queued", "suspects", "inbox")
INSTANT_SETS = ("scheduled", "workers", "failed")
INSTANT_TEXTS = ("paused",)
LIFETIMES = ("result_ttl_ms", "failure_ttl_ms")
HISTORY = "history"
NUMBERS = ("attempt", "crashes", "cancel", "turn", *LIFETIMES)


def is_instant(field: str) -> bool:
    return field.endswith("_ms") and field not in LIFETIMES


class Store:
    """The store of queue `q` at one server."""

    def __init__(self, client: redis.Redis) -> None:
        self._client: Any = client
        self._seeded_ms = self.now_ms()

    def now_ms(self) -> int:
        seconds, micros = self._client.time()
        return int(seconds) * 1000 + int(micros) // 1000

    def elapsed_ms(self) -> int:
        return self.now_ms() - self._seeded_ms

    # writing

    def seed(self, *parts: Mapping[str, Any]) -> Image:
        """Write the given parts into an empty store and return them as one image."""
        image: Image = {}
        for part in parts:
            for name, value in part.items():
                image[name] = _joined(image.get(name), value)
        self._seeded_ms = self.now_ms()
        for name, value in sorted(image.items(), key=lambda entry: entry[0] == "ttl"):
            self._write(name, value)
        return image

    def _write(self, name: str, value: Any) -> None:
        key, kind = BASE + name, name.partition(":")[0]
        if name == "ttl":
            for each, offset in value.items():
                self._client.pexpireat(BASE + each, self.instant_ms(offset))
        elif name == "queues":
            self._client.sadd(REGISTRY, *value)
        elif kind in LISTS:
            self._client.lpush(key, *value)
        elif kind in INSTANT_SETS:
            self._client.zadd(key, {member: self.instant_ms(offset) for member, offset in value.items()})
        elif kind in INSTANT_TEXTS:
            self._client.set(key, self.instant_ms(value))
        elif isinstance(value, Mapping):
            fields = {field: self._stored(field, v) for field, v in value.items()}
            self._client.hset(key, mapping=fields)
        else:
            self._client.set(key, value)

    def _stored(self, field: str, value: Any) -> Any:
        if field == HISTORY:
            return "".join(map(self._stored_run, value))
        return self.instant_ms(value) if is_instant(field) else value

    def _stored_run(self, run: str) -> str:
        started, ended, worker, outcome, told = run.split(" ", 4)
        instants = f"{self.instant_ms(float(started))} {self.instant_ms(float(ended))}"
        return f"{instants} {worker} {outcome} {len(told)}\n{told}"

    def instant_ms(self, offset: float) -> float:
        """Give the server's time so many seconds after the seed."""
        return offset if offset == float("inf") else self._seeded_ms + int(offset) * 1000

    # reading

    def dump(self) -> Image:
        """Read every key of the server."""
        image: Image = {}
        lifetimes: dict[str, Any] = {}
        for key in sorted(self._client.scan_iter(count=1000)):
            if key == REGISTRY:
                image["queues"] = sorted(self._client.smembers(key))
                continue
            assert key.startswith(BASE), f"{key} is no key of this queue"
            name = key.removeprefix(BASE)
            image[name] = self._read(key, name.partition(":")[0])
            expires_ms = self._client.execute_command("PEXPIRETIME", key)
            if expires_ms > 0:
                lifetimes[name] = self.offset(expires_ms)
        if lifetimes:
            image["ttl"] = lifetimes
        return image

    def _read(self, key: str, kind: str) -> Any:
        match self._client.type(key):
            case "list":
                return list(reversed(self._client.lrange(key, 0, -1)))
            case "zset":
                return {
                    member: self.offset(score) for member, score in self._client.zrange(key, 0, -1, withscores=True)
                }
            case "hash":
                return {field: self._value(kind, field, v) for field, v in self._client.hgetall(key).items()}
            case "set":
                return sorted(self._client.smembers(key))
            case _:
                text = self._client.get(key)
                return self.offset(float(text)) if kind in INSTANT_TEXTS else text

    def _value(self, kind: str, field: str, text: str) -> Any:
        if field == HISTORY:
            return self._runs(text)
        if is_instant(field):
            return self.offset(float(text))
        return int(text) if kind == "stats" or field in NUMBERS else text

    def _runs(self, text: str) -> list[str]:
        runs: list[str] = []
        while text:
            line, _, rest = text.partition("\n")
            started, ended, worker, outcome, length = line.split(" ")
            times = f"{self.offset(int(started))} {self.offset(int(ended))}"
            runs.append(f"{times} {worker} {outcome} {rest[: int(length)]}")
            text = rest[int(length) :]
        return runs

    def offset(self, instant_ms: float) -> float | str:
        """Read an instant as seconds from the seed, or as odd milliseconds where it is none of those expected."""
        if instant_ms == float("inf"):
            return instant_ms
        passed = int(instant_ms) - self._seeded_ms
        step_ms = SECONDS_PER_STEP * 1000
        whole = (passed + CLOCK_SLACK_MS) // step_ms * step_ms
        if passed - whole > self.elapsed_ms() + CLOCK_SLACK_MS:
            return f"{passed} ms"
        return whole // 1000

    def about(self, ms: float, seconds: float) -> bool:
        """Say whether a span that the server measured since an instant `seconds` before the seed is right."""
        return seconds * 1000 <= ms <= seconds * 1000 + self.elapsed_ms() + CLOCK_SLACK_MS


def _joined(old: Any, new: Any) -> Any:
    if old is None:
        return new
    if isinstance(old, dict):
        return {**old, **new}
    return [*cast("list[str]", old), *new]


def but(image: Image, *changes: Mapping[str, Any]) -> Image:
    """Give the image with the changes made: hashes and sets by field, the rest as a whole; None and empty remove."""
    result = dict(image)
    for change in changes:
        for name, value in change.items():
            old = result.get(name)
            if isinstance(value, Mapping) and isinstance(old, Mapping):
                merged = {**old, **value}
                result[name] = {field: v for field, v in merged.items() if v is not None}
            else:
                result[name] = value
    return {name: value for name, value in result.items() if value is not None and value not in ([], {})}


def without(image: Image, *names: str) -> Image:
    """Give the image with these keys and their lifetimes gone."""
    left = {name: value for name, value in image.items() if name not in names}
    return but(left, {"ttl": dict.fromkeys(names)}) if "ttl" in left else left


# parts to seed with


def record(job_id: str, state: str, **fields: Any) -> Image:
    """A job's record, envelope and unique key, in none of the structures."""
    image: Image = {
        f"job:{job_id}": {"state": state, "enqueued_ms": -60, **fields},
        f"payload:{job_id}": f"call {job_id}",
    }
    if "unique" in fields:
        image[f"unique:{fields['unique']}"] = job_id
    return image


def queued(job_id: str, **fields: Any) -> Image:
    return {**record(job_id, "queued", **fields), "queued": [job_id]}


def suspect(job_id: str, crashes: int = 2, **fields: Any) -> Image:
    return {**record(job_id, "queued", crashes=crashes, **fields), "suspects": [job_id]}


def caught(job_id: str, worker: str, **fields: Any) -> Image:
    """A job that a parked fetch has moved into the worker's inbox."""
    return {**record(job_id, "queued", **fields), f"inbox:{worker}": [job_id]}


def ran(outcome: str, told: str = "", *, started: int = -10, ended: int = 0, worker: str = "me") -> str:
    """One run in a job's history; `told` is its error."""
    return f"{started} {ended} {worker} {outcome} {told}"


def scheduled(job_id: str, due: int, **fields: Any) -> Image:
    return {**record(job_id, "scheduled", due_ms=due, **fields), "scheduled": {job_id: due}}


def running(job_id: str, token: str, **fields: Any) -> Image:
    """A job held by the worker that its token names."""
    worker = token.rpartition("/")[0]
    return {
        **record(job_id, "running", token=token, started_ms=-10, **fields),
        f"held:{worker}": {job_id: token},
    }


def ended(job_id: str, state: str, ttl: int | None = 3600, **fields: Any) -> Image:
    image = record(job_id, state, ended_ms=-10, **{name: v for name, v in fields.items() if name != "unique"})
    if state == "completed":
        del image[f"payload:{job_id}"]
    if ttl is not None:
        image["ttl"] = dict.fromkeys(image, ttl)
    return image


def failed(job_id: str, ttl: int | None = 604_800, **fields: Any) -> Image:
    """A failed job among the dead letters."""
    return {
        **ended(job_id, "failed", ttl, error="{}", attempt=1, **fields),
        "failed": {job_id: float("inf") if ttl is None else ttl},
    }


def worker(name: str, *, lease: int = 10, turn: int = 1, **fields: Any) -> Image:
    return {
        "workers": {name: lease},
        f"worker:{name}": {"info": f"host of {name}", "turn": turn, "refused": "", **fields},
    }


TICKET: Image = {"queued": ["wake"]}
PAUSED: Image = {"paused": -30}
