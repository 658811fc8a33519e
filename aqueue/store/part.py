"""A share of a queue's transitions: what belongs together stands in one module, and the client hands it out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from aqueue.store import layout
from aqueue.store.connection import Links
from aqueue.store.keys import Keys
from aqueue.store.scripts import Arg, load

if TYPE_CHECKING:
    from aqueue.store.client import Client

T = TypeVar("T")


class Caller(ABC):
    """Whoever calls scripts of one queue."""

    keys: Keys

    @property
    @abstractmethod
    def links(self) -> Links:
        """The connections of the running event loop."""

    async def _run(
        self,
        name: str,
        read: Callable[[Any], T],
        keys: Sequence[str],
        argv: Sequence[Arg] = (),
        *,
        each: Iterable[str] = (),
        items: Iterable[Arg] = (),
    ) -> T:
        """Call a script and read its answer. Errors: as Links.run; StoreError for an answer that cannot be read."""
        script = load(name)
        reply = await self.links.run(self.keys.queued, script, script.arguments(keys, argv, each, items))
        return layout.understood(name, read, reply)


class Part(Caller):
    """Base of the parts of a store client."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.keys = client.keys
        self.settings = client.settings

    @property
    def links(self) -> Links:
        return self._client.links
