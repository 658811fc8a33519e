"""The wire: what was written by an older version is read for ever, and what cannot be read says so."""

from __future__ import annotations

import dataclasses
import enum
import inspect
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import pydantic
import pytest

from aqueue.errors import BadArguments, NotSerializable
from aqueue.job import JobError
from aqueue.retry import Retry
from aqueue.store import codec

GOLDEN = (
    b'[1,"fetch",["https://example.org",{"a":[1,null,true]}],{"depth":2},'
    b'{"timeout_ms":1500,"max_attempts":3,"backoff_ms":2000,"cap_ms":600000,"jitter":true,"extra":{"trace":"t"}}]'
)
BARE = b'[1,"fetch",[],{},{}]'
GOLDEN_ERROR = b'{"type":"ValueError","message":"no","traceback":"Traceback"}'


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


class Person(pydantic.BaseModel):
    name: str


def test_an_envelope_of_version_1_is_written_as_ever() -> None:
    """A worker of the last release has to read what this release's producers write."""
    headers = codec.Headers(timeout_ms=1500, extra={"trace": "t"})
    headers.set_retry(Retry(max_attempts=3))
    data = codec.encode_call("fetch", ("https://example.org", {"a": [1, None, True]}), {"depth": 2}, headers)
    assert data == GOLDEN
    assert codec.encode_call("fetch", (), {}, codec.Headers()) == BARE


def test_an_envelope_of_version_1_is_read_for_ever() -> None:
    """Jobs may wait for months. If this fails, mend the reader and not the test."""
    envelope = codec.decode_envelope(GOLDEN)
    assert (envelope.version, envelope.task) == (1, "fetch")
    assert codec.decode_plain(envelope.args) == ["https://example.org", {"a": [1, None, True]}]
    assert {name: codec.decode_plain(raw) for name, raw in envelope.kwargs.items()} == {"depth": 2}
    assert envelope.headers.timeout_ms == 1500
    assert envelope.headers.retry_over(Retry()) == Retry(max_attempts=3)
    assert envelope.headers.extra == {"trace": "t"}
    bare = codec.decode_envelope(BARE)
    assert (bare.headers.timeout_ms, bare.headers.max_attempts, bare.headers.extra) == (None, None, {})


def test_what_a_newer_minor_version_adds_is_skipped() -> None:
    """In a rolling deploy the producer is newer than the worker for a while."""
    envelope = codec.decode_envelope(
        b'[1,"fetch",[],{},{"priority":5,"timeout_ms":7,"extra":{}},"appended",{"more":1}]'
    )
    assert (envelope.task, envelope.headers.timeout_ms) == ("fetch", 7)


def test_a_newer_version_is_refused_with_the_way_out() -> None:
    """To guess at its meaning could run a job with the wrong arguments."""
    with pytest.raises(codec.EnvelopeTooNew, match="version 2, this worker reads 1; upgrade the worker"):
        codec.decode_envelope(b'[2,"fetch",[],{},{}]')


@pytest.mark.parametrize("version", [0, -1])
def test_a_version_that_there_never_was_is_damage(version: int) -> None:
    """No newer worker will ever read it."""
    with pytest.raises(BadArguments, match="version") as caught:
        codec.decode_envelope(b'[%d,"fetch",[],{},{}]' % version)
    assert not isinstance(caught.value, codec.EnvelopeTooNew)


@pytest.mark.parametrize(
    "data", [b"", b"null", b"{}", b"[]", b"[1]", b'[1,"fetch",[],{}]', b'["1","f",[],{},{}]', b"\xff", b"[" * 9999]
)
def test_a_damaged_envelope_is_refused(data: bytes) -> None:
    """One class for all of it, so that one job fails and nothing else."""
    with pytest.raises(BadArguments, match="envelope"):
        codec.decode_envelope(data)


def test_half_of_a_retry_is_none() -> None:
    """A damaged header must not invent numbers."""
    usual = Retry(max_attempts=9, delays=[1, 2])
    assert codec.Headers(max_attempts=3, backoff_ms=5).retry_over(usual) is usual
    assert codec.Headers(backoff_ms=5, cap_ms=5, jitter=True).retry_over(usual) is usual


def test_an_error_survives_the_wire() -> None:
    """What the worker saw is what the caller is told."""
    error = JobError(type="ValueError", message="no", traceback="Traceback")
    assert codec.encode_error(error) == GOLDEN_ERROR
    assert codec.decode_error(GOLDEN_ERROR) == error
    assert codec.decode_error(b'{"type":"A","message":"b","later":1}') == JobError(type="A", message="b")


def test_an_error_is_kept_small_and_writable() -> None:
    """Failures are kept for days; the last lines of a traceback say most."""
    error = codec.decode_error(
        codec.encode_error(JobError(type="T", message="m\udcff" * 100_000, traceback="first" + "x" * 100_000 + "last"))
    )
    assert len(error.message) + len(error.traceback) < 100_000
    assert error.message.startswith("m")
    assert error.traceback.endswith("last")


@pytest.mark.parametrize("data", [None, b"", b"plain text", b"\xff", b"[1]"])
def test_an_unreadable_error_is_its_own_message(data: bytes | None) -> None:
    """The reason for a failure must never be a second failure."""
    error = codec.decode_error(data)
    assert error.type == "Unknown"
    assert error.message


def decode(function: Any, args: tuple[Any, ...] = (), **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    hints = inspect.get_annotations(function, eval_str=True)
    decoder = codec.ArgumentsDecoder(function.__name__, inspect.signature(function), hints)
    data = codec.encode_call(function.__name__, args, kwargs, codec.Headers())
    return decoder.decode(codec.decode_envelope(data))


VALUES = (
    7, 0.5, "ü\x00", None, True, b"\xff", datetime(2026, 1, 1, tzinfo=UTC), UUID(int=1), Decimal("1.10"), Colour.RED,
    Point(1), Person(name="ada"), (1, "a"), {1, 2}, [Point(1, 2)], {"a": Person(name="b")}, {3: Colour.RED},
)  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=[type(value).__name__ for value in VALUES])
def test_arguments_come_back_as_annotated(value: Any) -> None:
    """By position, by keyword, and through *args and **kwargs."""
    hint: Any = {(1, "a"): tuple[int, str]}.get(value) if isinstance(value, tuple) else type(value)
    hint = {set: set[int], list: list[Point]}.get(hint, hint)
    if hint is dict:
        hint = dict[str, Person] if "a" in value else dict[int, Colour]

    def function(first, *rest, named=None, **more) -> None: ...  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN002, ANN003

    function.__annotations__.update(dict.fromkeys(("first", "rest", "named", "more"), hint))
    args, kwargs = decode(function, (value, value), named=value, other=value)
    assert args == (value, value)
    assert kwargs == {"named": value, "other": value}
    assert type(args[0]) is type(args[1]) is type(kwargs["other"]) is type(value)


def test_without_annotations_arguments_are_plain_data() -> None:
    """Nobody has to annotate."""

    def function(a, b=None, **c) -> None: ...  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN003

    assert decode(function, ([1, {"x": None}],), c=2.5) == (([1, {"x": None}],), {"c": 2.5})


def test_annotations_that_no_codec_knows_give_plain_data() -> None:
    """A union that JSON cannot tell apart, or somebody's own class, is not a reason to refuse the task."""

    class Own: ...

    def function(a: Point | Person, b: Own | None = None) -> None: ...

    function.__annotations__["b"] = Own | None
    function.__annotations__["a"] = Point | Person
    hints = function.__annotations__
    decoder = codec.ArgumentsDecoder("function", inspect.signature(function), hints)
    data = codec.encode_call("function", ({"x": 1}, None), {}, codec.Headers())
    assert decoder.decode(codec.decode_envelope(data)) == (({"x": 1}, None), {})


@pytest.mark.parametrize(
    ("args", "kwargs", "word"),
    [
        ((), {}, "missing"),
        ((1, 2, 3), {}, "too many"),
        ((1,), {"c": 1}, "c"),
        (("x",), {}, "int"),
        ((1,), {"b": "x"}, "int"),
        ((None,), {}, "int"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(args: tuple[Any, ...], kwargs: dict[str, Any], word: str) -> None:
    """Before the function is called: half a run with wrong values cannot be undone."""

    def function(a: int, b: int = 0) -> None: ...

    with pytest.raises(BadArguments, match=word):
        decode(function, args, **kwargs)


def test_what_cannot_be_written_is_named() -> None:
    """The first of several arguments that is at fault."""
    with pytest.raises(NotSerializable, match=r"argument 2 of f cannot be sent .*object"):
        codec.encode_call("f", (1, object()), {}, codec.Headers())
    with pytest.raises(NotSerializable, match="b of f"):
        codec.encode_call("f", (), {"a": 1, "b": {"c": object()}}, codec.Headers())


def test_the_largest_argument_is_named() -> None:
    """Without it, people bisect."""
    assert codec.largest_argument(("x", "y" * 100), {"z": 1}) == "argument 2 alone takes 102"
    assert codec.largest_argument((), {}) == "none alone takes 0"


def test_results_are_bounded() -> None:
    """Redis holds them for an hour, all of them."""
    assert codec.encode_result(None, 4) == b"null"
    assert codec.encode_result("xx", 4) == b'"xx"'
    with pytest.raises(NotSerializable, match="5 bytes, more than the 4 allowed"):
        codec.encode_result("xxx", 4)
    with pytest.raises(NotSerializable, match="object"):
        codec.encode_result(object(), 4)


@pytest.mark.parametrize("annotation", [int, Point, Person, list[Person], Colour])
def test_a_result_of_another_type_is_a_value_error(annotation: Any) -> None:
    """Each library has its own exception for this; callers of the codec should know one."""
    with pytest.raises(ValueError, match="annotated"):
        codec.result_decoder(annotation)(b'["no"]')


def test_a_worker_says_who_it_is() -> None:
    """Operators look for host and pid."""
    info = codec.encode_worker(codec.WorkerInfo("host", 7, 10, "1.0"))
    assert codec.worker_name(info) == "host:7"
    assert codec.worker_name("nonsense") == ""
    assert msgspec.json.decode(info) == {"host": "host", "pid": 7, "concurrency": 10, "version": "1.0"}
