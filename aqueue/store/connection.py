"""Who holds which connection, and what a failed call means.

Per event loop and server there is one shared command link; a parked fetch and the mailbox have one each. All of
them are found through the running loop, so a queue that is used from a second loop, or after a fork, opens its own
connections instead of speaking through somebody else's.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import defaultdict
from collections.abc import Callable
from typing import Any, Final, TypeVar
from weakref import WeakKeyDictionary, WeakSet

from redis.exceptions import AuthenticationError, NoScriptError, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from aqueue.errors import ConfigurationError, StoreError, StoreFull, StoreUnavailable
from aqueue.store import tls
from aqueue.store.address import Route
from aqueue.store.link import REPLY_SECONDS, Link
from aqueue.store.mailbox import Listener, Mailbox
from aqueue.store.scripts import Arg, Script

T = TypeVar("T")

PATIENCE_SECONDS: Final = 3.0
"""For how long a call is tried again while the server cannot be reached. Every script may be sent twice."""

_MOVED: Final = {"MOVED", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "UNBLOCKED"}
"""Not executed, because another server has to be asked: connect anew."""
_BUSY: Final = {"TRYAGAIN", "ASK", "BUSY", "LOADING", "NOREPLICAS", "MISCONF"}
"""Not executed, because the server cannot do it now: ask again in a moment. ASK says that the slot is on the move:
nothing can be done at its new server before it has arrived as a whole, and then this one says MOVED."""
_CODES: Final = {
    "OutOfMemoryError": "OOM",
    "ReadOnlyError": "READONLY",
    "NoPermissionError": "NOPERM",
    "MovedError": "MOVED",
    "AskError": "ASK",
    "TryAgainError": "TRYAGAIN",
    "ClusterDownError": "CLUSTERDOWN",
    "MasterDownError": "MASTERDOWN",
}
"""redis-py takes the code out of the message where it has a class for it, which depends on its version."""


def refusal_code(error: ResponseError) -> str:
    """Name the server's refusal by the first word of its reply."""
    return _CODES.get(type(error).__name__) or str(error).partition(" ")[0]


class Patience:
    """How long a call is tried again, from its first failure on, with pauses that grow."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._give_up = self._loop.time() + PATIENCE_SECONDS
        self._pause = 0.02

    async def pause(self) -> bool:
        """Wait before the next attempt; False where there is to be none."""
        if self._loop.time() + self._pause > self._give_up:
            return False
        await asyncio.sleep(self._pause * random.uniform(0.5, 1.5))  # noqa: S311  # spreads load, guards nothing
        self._pause = min(self._pause * 2, 0.5)
        return True


class Links:
    """The connections of one event loop to one server, or one cluster."""

    def __init__(self, route: Route) -> None:
        self.route = route
        self.users: set[object] = set()
        """Who has asked for these connections and not given them back; the last one to do so closes them."""
        self._commands: dict[str, Link] = {}
        self._aside: dict[str, Link] = {}
        """For calls that hold their connection up."""
        self._mailboxes: dict[str, Mailbox] = {}
        self._opening: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    def open_link(self, key: str) -> Link | None:
        """Give the shared link to the server of `key`, if it is open."""
        node = self.route.known_node(key)
        link = None if node is None else self._commands.get(node)
        return link if link is not None and link.alive else None

    async def command(self, key: str) -> Link:
        """Give the shared link to the server of `key`, opening it at the first use."""
        node = await self.route.node(key)
        link = self._commands.get(node)
        if link is None or not link.alive:
            async with self._opening[node]:
                link = self._commands.get(node)
                if link is None or not link.alive:
                    link = self._commands[node] = await self.dedicated(key)
        return link

    async def dedicated(self, key: str) -> Link:
        """Open a link that only the caller uses, and closes."""
        return Link(await self.route.connect(key))

    async def mailbox(self, key: str) -> Mailbox:
        """Give the shared subscription at the server of `key`."""
        node = await self.route.node(key)
        if node not in self._mailboxes:
            self._mailboxes[node] = Mailbox(lambda: self.route.connect(key))
        return self._mailboxes[node]

    async def listen(self, channel: str, listener: Listener) -> Mailbox:
        """Have what is said on a channel handed to a listener; give the mailbox that does so. Errors: as `run`."""
        patience: Patience | None = None
        while True:
            try:
                mailbox = await self.mailbox(channel)
                await mailbox.listen(channel, listener)
            except (RedisError, OSError) as error:
                patience = await self._endure(error, channel, patience)
            else:
                return mailbox

    async def run(self, key: str, script: Script, arguments: list[Arg]) -> Any:
        """Call a script at the server of `key` until it answers; safe because every script may run twice.

        Errors: StoreUnavailable after PATIENCE_SECONDS, StoreFull, StoreError for any other refusal.
        """
        try:
            return await self.send(key, ("EVALSHA", script.sha, *arguments))
        except NoScriptError:
            return await self.send(key, ("EVAL", script.text, *arguments))

    async def send(self, key: str, command: tuple[Arg, ...]) -> Any:
        """Send an idempotent command as `run` does."""
        patience: Patience | None = None
        while True:
            try:
                link = self.open_link(key) or await self.command(key)
                return await link.call(*command)
            except NoScriptError:
                raise
            except (RedisError, OSError) as error:
                patience = await self._endure(error, key, patience)

    async def run_in_a_row(self, key: str, *commands: tuple[Arg, ...], patience: float) -> list[Any]:
        """Send commands as `run` does, in one write, over a connection that may be held up for `patience` seconds.

        Shape:  replies, or refusals of all commands but the first.
        """
        attempts: Patience | None = None
        while True:
            try:
                node = await self.route.node(key)
                async with self._opening[f"{node} aside"]:  # one row after the other, for each waits for its end
                    link = self._aside.get(node)
                    if link is None or not link.alive:
                        link = self._aside[node] = await self.dedicated(key)
                    replies = await link.call_in_a_row(*commands, timeout=patience + REPLY_SECONDS, first_decides=True)
            except (RedisError, OSError) as error:
                attempts = await self._endure(error, key, attempts)
            else:
                return replies

    async def _endure(self, error: Exception, key: str, patience: Patience | None) -> Patience:
        """Wait a little if the call is to be tried again, else raise what the error means."""
        patience = patience or Patience()
        if isinstance(error, ResponseError):
            await self._react(error, key)
        elif isinstance(error, AuthenticationError):
            raise StoreError(
                f"{self.route.label} refused the credentials ({error}); mend user and password."
            ) from error
        elif isinstance(error, RedisTimeoutError):  # it has had its time, and may still execute the call
            raise self._unavailable(error) from error
        elif complaint := tls.complaint(error):
            raise StoreError(f"{self.route.label} {complaint}.") from error
        else:
            await self.route.refresh()  # it may be away for good, and another serve in its place
        if not await patience.pause():
            raise self._unavailable(error) from error
        return patience

    async def _react(self, refusal: ResponseError, key: str) -> None:
        """Return if the call is to be tried again, else raise what the refusal means."""
        code = refusal_code(refusal)
        if code in _MOVED:
            await self.reconnect(key)
        elif code == "OOM":
            raise StoreFull(
                f"{self.route.label} is out of memory and stored nothing; raise maxmemory or let the workers catch up."
            ) from refusal
        elif code == "NOPERM":
            raise StoreError(f"{self.route.label} does not permit this user what aqueue needs: {refusal}.") from refusal
        elif code == "WRONGTYPE":
            raise StoreError(
                f"At {self.route.label} another type of value than aqueue's lies under {key}, or under a key beside it "
                f"({refusal}); `aqueue doctor` names it, so that it can be renamed or removed."
            ) from refusal
        elif code not in _BUSY:
            raise StoreError(
                f"{self.route.label} refused a script of aqueue ({refusal}); please report this."
            ) from refusal

    def _unavailable(self, problem: Exception) -> StoreUnavailable:
        return unavailable(self.route.label, problem, tls.hint(problem, self.route.tls))

    async def reconnect(self, key: str) -> None:
        """Drop the link to the server of `key`, and ask anew where that is."""
        try:
            node = await self.route.node(key)
            for link in (self._commands.pop(node, None), self._aside.pop(node, None)):
                if link is not None:
                    await link.close()
        finally:
            await self.route.refresh()

    async def close(self) -> None:
        commands, self._commands = self._commands, {}
        mailboxes, self._mailboxes = self._mailboxes, {}
        for mailbox in mailboxes.values():
            await mailbox.close()
        aside, self._aside = self._aside, {}
        for link in (*commands.values(), *aside.values()):
            await link.close()
        await self.route.close()


def unavailable(label: str, problem: Exception, hint: str = "") -> StoreUnavailable:
    if isinstance(problem, ResponseError):
        refusal = f"{refusal_code(problem)}: {problem}"
        return StoreUnavailable(
            f"Redis at {label} could not do what was asked for {PATIENCE_SECONDS:g} s ({refusal}); try again later."
        )
    late = isinstance(problem, RedisTimeoutError | TimeoutError)
    unanswered = f"did not answer within {REPLY_SECONDS:g} s and may or may not have done what was asked"
    what = unanswered if late else f"cannot be reached ({problem})"
    return StoreUnavailable(
        f"Redis at {label} {what}{hint}; start it or set AQUEUE_URL, or unset AQUEUE_URL "
        'and install "aqueue-redis[embedded]" to develop without one.'
    )


CONNECTION_ERRORS: Final = (RedisConnectionError, RedisTimeoutError, OSError)


class Server:
    """One address, shared by all queues that name it."""

    def __init__(self, make_route: Callable[[], Route]) -> None:
        self._make_route = make_route
        self._links: WeakKeyDictionary[asyncio.AbstractEventLoop, Links] = WeakKeyDictionary()
        self._left_to_parent: list[object] = []
        _all_servers.add(self)

    def links(self, user: object) -> Links:
        """Give the connections of the running loop, on behalf of `user`. Errors: ConfigurationError without a loop."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise ConfigurationError("aqueue needs a running event loop; call it from an async function.") from None
        links = self._links.get(loop)
        if links is None:
            for closed in [known for known in self._links if known.is_closed()]:  # asyncio.run without close()
                del self._links[closed]
            links = self._links[loop] = Links(self._make_route())
        links.users.add(user)
        return links

    def forget_parent(self) -> None:
        """After a fork the sockets are still the parent's: keep them referenced, so that nothing here closes them."""
        self._left_to_parent.append((self._links, list(self._links.items())))
        self._links = WeakKeyDictionary()

    async def release(self, user: object) -> None:
        """Close the running loop's connections once nobody uses them; the next use opens new ones."""
        loop = asyncio.get_running_loop()
        links = self._links.get(loop)
        if links is not None:
            links.users.discard(user)
            if not links.users:
                del self._links[loop]
                await links.close()


_all_servers: Final[WeakSet[Server]] = WeakSet()


def _forget_parents() -> None:
    for server in list(_all_servers):
        server.forget_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parents)
