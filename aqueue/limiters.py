"""Limiters: limits around a part of a job, or of any other program, where `limit=` is around whole jobs.

    crm = queue.limiter(Rate(50, per="1s", burst=10, name="crm"), wait="30s")

    async with crm:
        await client.post(...)

Concurrent, bucket and window limiters after Dramatiq; who waits is told, or knows when, instead of trying again.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Coroutine, Hashable
from functools import cached_property
from threading import get_ident
from typing import Any, Final, TypeAlias, TypeVar, cast

import anyio.from_thread

from aqueue.context import current_job
from aqueue.errors import ConfigurationError, RateLimited, StoreError, shown
from aqueue.keeper import Held, Keeper
from aqueue.limits import Concurrency, Limit
from aqueue.settings import MIN_LEASE_SECONDS, Duration, Settings, seconds
from aqueue.store.client import Client
from aqueue.store.keys import MAX_NAME_LENGTH, gate_digest
from aqueue.store.permits import Answer, Kind, Permits, Turnstile
from aqueue.store.turns import Turns

T = TypeVar("T")
Wait: TypeAlias = bool | Duration

ENDLESS: Final = math.inf
RECHECK_SECONDS: Final = 5.0
"""A notification is lost only with its connection; this bounds what that may cost."""
CROWDED_SECONDS: Final = 1.0
"""Nobody knows when a permit comes free: who is turned away is to ask again after so long, or when a lease ends."""
LOOK_SECONDS: Final = 0.2
"""A thread that waits for a permit looks so often whether its job was told to stop."""


class Permit:
    """Leave to go on, until it is released.

    That of a Concurrency is kept as long as the process lives and refers to it; of a Rate or a Window there is nothing
    to keep.
    """

    def __init__(self, desk: Desk, held: Held) -> None:
        self._desk = desk
        self._held = held
        self._released = False

    def __repr__(self) -> str:
        state = "lost" if self.lost else "released" if self._released else "held"
        return f"Permit({self._held.name!r}, {state})"

    @property
    def lost(self) -> bool:
        """Its lease has ended before it was released, so that somebody else may have one more than there should be."""
        return self._held.lost

    async def release(self) -> None:
        """Give it back, once; it is handed to whoever waits longest.

        Errors: none; what the server cannot be told ends with the lease.
        """
        if not self._released:
            self._released = True
            await self._desk.release(self._held)


class Limiter:
    """A limit under a name, for all processes that use this queue; see Limiting.limiter."""

    def __init__(self, desk: Desk, limit: Limit, wait: Wait, lease: Duration | None, default_lease: float) -> None:
        self.name = _name_of(limit)
        self.limit = limit
        self._desk = desk
        self._wait = _patience(wait)
        self._at = _turnstile(limit, self.name, _lease(limit, lease, default_lease))
        self._entered: defaultdict[Hashable, list[Permit]] = defaultdict(list)
        """By the task or thread that is inside, which may be so several times."""

    def __repr__(self) -> str:
        return f"Limiter({self.limit!r})"

    async def acquire(self, *, wait: Wait | None = None) -> Permit:
        """Get a permit, which is to be released.

        Units:  `wait` as in Limiting.limiter, None for what was said there.
        Errors: RateLimited, at once if it is known that waiting is in vain; StoreUnavailable, StoreFull.
        """
        return Permit(self._desk, await self._desk.acquire(self._at, self.name, self._patience(wait)))

    def _patience(self, wait: Wait | None) -> float:
        return self._wait if wait is None else _patience(wait)

    async def __aenter__(self) -> Permit:
        permit = await self.acquire()
        self._entered[asyncio.current_task()].append(permit)
        return permit

    async def __aexit__(self, *_: object) -> None:
        await self._left(asyncio.current_task()).release()

    def __enter__(self) -> Permit:
        """As `async with`, for a plain function that runs as a task, in a thread."""
        permit = _in_loop(self.acquire)
        self._entered[get_ident()].append(permit)
        return permit

    def __exit__(self, *_: object) -> None:
        _in_loop(self._left(get_ident()).release)

    def _left(self, who: Hashable) -> Permit:
        if who not in self._entered:  # somebody else has entered for us, as fixtures of tests do; permits are alike
            who = next(iter(self._entered))
        permit = self._entered[who].pop()
        if not self._entered[who]:
            del self._entered[who]
        return permit


class Desk:
    """Where the limiters of one queue get their permits."""

    def __init__(self, store: Callable[[], Coroutine[Any, Any, Client]]) -> None:
        self._store = store
        self._client: Client | None = None
        self._releases: set[asyncio.Task[None]] = set()
        """Owned here: a release goes on although its caller is cancelled."""

    async def _open(self) -> tuple[Turns, Keeper]:
        client = await self._store()
        await client.register()  # so that tools look at limiters, too, of a queue that has no jobs
        if client is not self._client:
            self._client = client
            self._permits = Permits(client)
            self._turns, self._keeper = Turns(client), Keeper(client, self._permits)
        return self._turns, self._keeper

    async def acquire(self, at: Turnstile, name: str, patience: float) -> Held:
        """Get a permit within `patience` seconds. Errors: as Limiter.acquire."""
        turns, keeper = await self._open()
        held = Held(at, turns.new_holder(), name, asyncio.get_running_loop())
        try:
            await self._pass(turns, held, patience)
        except BaseException as error:  # whatever the server has done by now is undone
            if (at.kind == "c" and patience) or not isinstance(error, RateLimited):
                self._start_release(held)
            raise
        if at.kind == "c":
            keeper.keep(held)
        return held

    async def _pass(self, turns: Turns, held: Held, patience: float) -> None:
        if held.at.kind != "c":
            await self._pass_in_time(held, patience)
        elif (answer := await self._ask(held, 0.0)).word != "granted":
            if not patience:
                raise _limited(held, answer)
            await self._stand_in_line(turns, held, patience)

    async def _pass_in_time(self, held: Held, patience: float) -> None:
        """Pass a Rate or a Window at the instant that the server names, unless that is too late."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience
        while (answer := await self._ask(held, max(0.0, deadline - loop.time()))).word != "granted":
            if answer.word == "limited":
                raise _limited(held, answer)
            await asyncio.sleep(answer.ms / 1000)

    async def _stand_in_line(self, turns: Turns, held: Held, patience: float) -> None:
        """Wait until somebody hands on a permit, or the lease of one ends."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience
        async with turns.waiting(held.holder) as turn:
            while True:
                turn.begin()
                left = max(0.0, deadline - loop.time())
                answer = await self._ask(held, left)
                if answer.word == "granted":
                    return
                if not left:
                    raise _limited(held, answer)
                await turn.comes(min(left, answer.ms / 1000, RECHECK_SECONDS))

    async def _ask(self, held: Held, patience: float) -> Answer:
        job = current_job()
        place = f"{job.queue}/{job.id}" if job is not None and held.at.kind != "c" else ""
        wait_ms = -1 if patience == ENDLESS else math.ceil(patience * 1000)
        return await self._permits.acquire(held.at, held.holder, job=place, wait_ms=wait_ms)

    async def release(self, held: Held) -> None:
        self._keeper.forget(held.holder)
        if held.at.kind == "c":
            await asyncio.shield(self._start_release(held))

    def _start_release(self, held: Held) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(self._release(held), name="aqueue permit release")
        self._releases.add(task)
        task.add_done_callback(self._releases.discard)
        return task

    async def _release(self, held: Held) -> None:
        with contextlib.suppress(StoreError):  # its lease ends
            await self._permits.release(held.at, held.holder)

    async def close(self) -> None:
        """End all waits for a permit, send what is to be released, and end the thread if no permit is held."""
        if self._client is not None:
            await self._turns.close()
            here = asyncio.get_running_loop()
            await asyncio.gather(*(task for task in self._releases if task.get_loop() is here))
            await self._keeper.close()


class Limiting(ABC):
    """The part of a queue that hands out limiters."""

    settings: Settings

    @abstractmethod
    async def store(self) -> Client:
        """Give the store client; see Queue.store."""

    @cached_property
    def _desk(self) -> Desk:
        return Desk(self.store)

    def limiter(self, limit: Limit, *, wait: Wait = False, lease: Duration | None = None) -> Limiter:
        """Make a limiter, for `async with` in jobs and everywhere else, and `with` in plain functions that are tasks.

        It counts together with all of that name on this queue, and apart from the `limit=` of tasks. `wait` is False
        to raise RateLimited at once, True to wait as long as it takes, or for how long. A permit of a Concurrency has a
        lease, which is renewed as long as the process lives: that of a dead process is free when its lease ends.
        Units:  `wait` and `lease` in seconds, a timedelta or "5m"; a lease is that of the settings unless given.
        Errors: ConfigurationError for a limit without a name, or with a key.
        """
        if not isinstance(limit, Limit):
            raise ConfigurationError(f"limiter takes a Concurrency, a Rate or a Window, not {shown(limit)}.")
        return Limiter(self._desk, limit, wait, lease, self.settings.lease)


def _name_of(limit: Limit) -> str:
    kind = type(limit).__name__
    if limit.key is not None:
        raise ConfigurationError(
            f"A limiter has no argument {limit.key!r} to look at; write the value into the name, as in "
            f'{kind}({limit.limit}, name=f"{limit.key} {{{limit.key}}}").'
        )
    if limit.name is None or len(limit.name) > MAX_NAME_LENGTH:
        raise ConfigurationError(
            f"A limiter needs a name of up to {MAX_NAME_LENGTH} characters, by which all processes count together; "
            f'write {kind}({limit.limit}, name="...").'
        )
    return limit.name


def _turnstile(limit: Limit, name: str, lease: float) -> Turnstile:
    kind, _, first, *rest = limit.word.split(".")
    counted = kind if isinstance(limit, Concurrency) else limit.word  # as in limits of jobs, other rates stand apart
    return Turnstile(
        kind=cast("Kind", kind),
        digest=gate_digest(f"limiter {counted}", name, ""),
        first=int(first),
        second=int(rest[0]) if rest else 0,
        lease_ms=round(lease * 1000),
    )


def _lease(limit: Limit, lease: Duration | None, default: float) -> float:
    if lease is None:
        return default
    if not isinstance(limit, Concurrency):
        raise ConfigurationError(f"A {type(limit).__name__} has no lease, for nothing is held; leave it out.")
    length = seconds(lease, "lease")
    if length < MIN_LEASE_SECONDS:
        raise ConfigurationError(f"lease must be at least {MIN_LEASE_SECONDS:g} s, not {length:g} s.")
    return length


def _patience(wait: Wait) -> float:
    if isinstance(wait, bool):
        return ENDLESS if wait else 0.0
    return seconds(wait, "wait")


def _limited(held: Held, answer: Answer) -> RateLimited:
    after = answer.ms / 1000
    return RateLimited(min(after, CROWDED_SECONDS) if held.at.kind == "c" else after, held.name)


def _in_loop(function: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine function in the loop of this thread's job, and look now and then whether the job is to stop."""
    try:
        loop = anyio.from_thread.run_sync(asyncio.get_running_loop)
    except RuntimeError:
        raise ConfigurationError(
            "`with` a limiter is for plain functions that run as tasks, in threads; write `async with` here."
        ) from None
    future = asyncio.run_coroutine_threadsafe(function(), loop)
    try:
        while True:
            with contextlib.suppress(TimeoutError):
                return future.result(LOOK_SECONDS)
            if future.done():
                return future.result()
    except BaseException:
        future.cancel()
        raise
