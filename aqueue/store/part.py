"""A share of a queue's transitions: what belongs together stands in one module, and the client hands it out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from aqueue.store import layout
from aqueue.store.scripts import Arg, load

if TYPE_CHECKING:
    from aqueue.store.client import Client

T = TypeVar("T")


class Part:
    """Base of the parts of a store client."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.keys = client.keys
        self.settings = client.settings

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
        reply = await self._client.links.run(self.keys.queued, script, script.arguments(keys, argv, each, items))
        return layout.understood(name, read, reply)
