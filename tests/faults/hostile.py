"""What strangers may say: bytes, JSON, words of the wire and values of fields that aqueue would never write."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any, Final

import hypothesis
import hypothesis.strategies as st
import msgspec
import pytest

from aqueue.store import codec

EXTENT: Final = pytest.mark.parametrize(
    "examples", [pytest.param(0.02, id="short"), pytest.param(1.0, id="long", marks=pytest.mark.chaos)]
)
"""The default run tries a few hundred cases, the long form all of them."""

END_SECONDS: Final = 10.0
"""Ends a test that has failed."""
VALID: Final = codec.encode_call("work", (7,), {}, codec.NO_HEADERS)
LARGE: Final = 2**70


def explore(examples: int, strategy: st.SearchStrategy[Any], story: Callable[[Any], Coroutine[Any, Any, None]]) -> None:
    """Tell the story with so many examples, each in an event loop of its own, and check that nothing is left in it."""

    @hypothesis.settings(
        max_examples=max(1, examples),
        deadline=None,
        database=None,
        suppress_health_check=[hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.data_too_large],
        phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate, hypothesis.Phase.shrink),
    )
    @hypothesis.given(strategy)
    def tried(example: Any) -> None:
        asyncio.run(_tidily(story(example)))

    tried()


async def _tidily(story: Coroutine[Any, Any, None]) -> None:
    """Fail for what only the event loop hears of, and for tasks that nobody ends."""
    heard: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(context))
    with no_cry_for_help():
        await story
    left = asyncio.all_tasks() - {asyncio.current_task()}
    if left:  # what was told to end may still be about it
        _, left = await asyncio.wait(left, timeout=END_SECONDS)
    assert not left, [(task.get_name(), task.get_coro()) for task in left]
    assert not heard, heard


class _Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []
        self.defects: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        if record.exc_info:  # told with a traceback, for nobody had thought of it
            self.defects.append(f"{record.getMessage()}: {record.exc_info[1]!r}")


@contextlib.contextmanager
def no_cry_for_help() -> Any:
    """Fail if aqueue calls anything a defect of its own."""
    kept = _Kept()
    log = logging.getLogger("aqueue")
    log.addHandler(kept)
    try:
        yield kept.lines
    finally:
        log.removeHandler(kept)
    assert not kept.defects


@contextlib.asynccontextmanager
async def promptly(seconds: float = 20.0) -> AsyncGenerator[None]:
    """End what hangs."""
    async with asyncio.timeout(seconds):
        yield


# envelopes

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-LARGE, LARGE), st.floats(), st.text(max_size=8), st.just("work")
)
json_values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4)
)
headers = st.dictionaries(
    st.sampled_from(
        [
            "timeout_ms",
            "max_attempts",
            "backoff_ms",
            "cap_ms",
            "jitter",
            "spread",
            "growth",
            "delays_ms",
            "extra",
            "other",
        ]
    ),
    json_values,
)


def _written(value: object) -> bytes:
    try:
        return msgspec.json.encode(value)
    except (OverflowError, UnicodeEncodeError):
        return repr(value).encode("utf-8", "replace")


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    data = bytearray(VALID)
    for _ in range(draw(st.integers(1, 4))):
        place, piece = draw(st.integers(0, len(data))), draw(st.binary(max_size=3))
        data[place : place + draw(st.integers(0, 3))] = piece
    return bytes(data)


envelopes = st.one_of(
    st.binary(max_size=64),
    mutated(),
    json_values.map(_written),
    st.tuples(st.just(1), st.just("work"), json_values, json_values, headers).map(_written),
    st.tuples(st.integers(0, 2), scalars, json_values, st.dictionaries(st.text(), scalars), headers).map(_written),
    st.tuples(st.just(1), st.just("work"), st.tuples(st.just(7)), st.just({}), headers).map(_written),
)


# records

FIELDS: Final = (
    "state", "enqueued_ms", "due_ms", "expires_ms", "started_ms", "ended_ms", "attempt", "crashes", "token", "unique",
    "scope", "rank", "limits", "called", "stands", "result_ttl_ms", "failure_ttl_ms", "cancel", "waiters", "unknown_ms",
    "rerun", "result", "error", "task", "history",
)  # fmt: skip
WORDS: Final = (
    b"", b" ", b"x", b"-1", b"0", b"1", b"1.5", b"-7", b"nan", b"-nan", b"inf", b"1e400", b"0x10", b"9" * 18,
    b"9" * 400, b"\xff\xfe", b"\x00", b"running", b"queued", b"scheduled", b"completed", b"failed", b"cancelled",
    b"expired", b"w/1", b"/", b"//1", b"w/x", b"{", b"[]", b"null", b'{"type":1}', b"c.ab.1", b"g.ab.1.1", b"w.ab.0.0",
    b"1 2 w failed 3\n{}x", b"c.ab.99999999999999", b"started", b"window",
)  # fmt: skip
field_values = st.sampled_from(WORDS) | st.binary(max_size=12) | st.integers().map(lambda n: str(n).encode())
changes = st.dictionaries(
    st.sampled_from([name.encode() for name in FIELDS]) | st.binary(min_size=1, max_size=6),
    st.none() | field_values,
    min_size=1,
    max_size=4,
)
"""Values of fields; None takes the field away."""


# replies

_SHORT: Final = (
    b"+OK", b"-ERR no", b"-WRONGTYPE no", b":1", b":-1", b"$-1", b"*-1", b"_", b"#t", b",nan", b",1.5",
    b"(9" + b"9" * 40,
)  # fmt: skip
_lines = st.one_of(
    st.sampled_from(_SHORT),
    st.integers().map(lambda n: b":%d" % n),
    st.binary(max_size=6).map(lambda raw: b"+" + raw.replace(b"\r", b"").replace(b"\n", b"")),
).map(lambda line: line + b"\r\n")
_blocks = st.binary(max_size=12) | st.sampled_from([b"OK", b"MORE", b"queued", b"missing", b"1 2 3", b"123"])
_leaves = _lines | _blocks.map(lambda raw: b"$%d\r\n%s\r\n" % (len(raw), raw))


def _many(inner: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    lists = st.lists(inner, max_size=8)
    return lists.map(lambda parts: b"*%d\r\n" % len(parts) + b"".join(parts)) | st.lists(inner, max_size=2).map(
        lambda parts: b"%%%d\r\n" % len(parts) + b"".join(part * 2 for part in parts)
    )


replies = st.recursive(_leaves, _many, max_leaves=12)
"""Whole replies of any type and shape."""
nonsense = st.binary(min_size=1, max_size=20) | st.sampled_from(
    [b"*1\r\n" * 50, b"$99999\r\nx", b":\r\n", b"*x\r\n", b"\r\n"]
)
"""Bytes that are no reply, or no whole one."""


# names

_ODD: Final = (
    "{}", "a}b", "x" * 201, "x" * 200, "x" * 1_000_000, "a:b", "*", "job:1", "\ud800", "\u00e9", "\u540d", 10**5000
)  # fmt: skip
names = st.one_of(
    st.text(max_size=20),
    st.text(st.characters(categories=["Cs", "Cc", "Zs", "Po"]), max_size=4),
    st.binary(max_size=8),
    st.integers(),
    st.none(),
    st.sampled_from(_ODD),
)
