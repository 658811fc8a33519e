"""The limiters of one queue at the server: who holds their permits, who waits, and when the next may pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal, NewType, TypeAlias, get_args

import msgspec

from aqueue.store import layout
from aqueue.store.part import Part

Holder = NewType("Holder", str)
"""`<channel>/<number>`: one acquisition of one process."""

Kind: TypeAlias = Literal["c", "g", "w"]
Word: TypeAlias = Literal["granted", "waits", "limited"]

KEEP_PLACE_MS: Final = 15_000
"""Who waits asks again every five seconds, so that it may fail to do so twice before its place goes to the next."""

_WORDS: Final[dict[bytes, Word]] = {word.encode(): word for word in get_args(Word)}


class Turnstile(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One limiter in the words of lua/acquire.lua.

    Shape: `first` and `second` are in a kind "g" interval in us and burst, in a kind "w" limit and span in ms.
    """

    kind: Kind
    digest: str
    first: int
    second: int
    lease_ms: int


class Answer(msgspec.Struct, frozen=True, gc=False):
    """What a limiter says to who asks; `ms` until it is to ask again, or until the lease of its permit ends."""

    word: Word
    ms: int


class Permits(Part):
    """The transitions of limiters."""

    async def acquire(self, at: Turnstile, holder: Holder, *, job: str = "", wait_ms: int = 0) -> Answer:
        """Let one holder past, or say when it may ask again; a holder that asks twice is let past once.

        Units:  `wait_ms` is for how long it would wait, -1 for ever.
        Errors: StoreFull with nothing changed.
        Source: lua/acquire.lua.
        """
        keys = self.keys
        return await self._run(
            "acquire",
            _answer,
            [
                keys.holders(at.digest), keys.pace(at.digest), keys.passes(at.digest), keys.line(at.digest),
                keys.patience(at.digest),
            ],
            [
                keys.base, at.kind, at.digest, at.first, at.second, holder, job, wait_ms, at.lease_ms, KEEP_PLACE_MS,
            ],
        )  # fmt: skip

    async def renew(self, held: Sequence[tuple[Turnstile, Holder]]) -> list[bool]:
        """Let permits last for one more lease; say of each whether it was still held."""
        kept = await self._run(
            "renew_permits",
            layout.each(layout.integer, len(held)),
            [],
            each=[self.keys.holders(at.digest) for at, _ in held],
            items=[part for at, holder in held for part in (holder, at.lease_ms)],
        )
        return [bool(one) for one in kept]

    async def release(self, at: Turnstile, holder: Holder) -> bool:
        """Give a permit back, or a place in line; say whether it was a permit."""
        keys = self.keys
        limit = at.first if at.kind == "c" else 0
        return bool(
            await self._run(
                "release_permit",
                layout.integer,
                [keys.holders(at.digest), keys.line(at.digest), keys.patience(at.digest)],
                [keys.base, holder, limit, at.lease_ms],
            )
        )


def _answer(reply: Any) -> Answer:
    word, left = reply
    if (ms := layout.integer(left)) < 0:
        raise ValueError("time runs forward")
    return Answer(_WORDS[word], ms)
