"""Injection by itself, without worker or Redis."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from aqueue import ConfigurationError, Context, Depends, current_job
from aqueue.context import Injection, injected_parameters, place

CONTEXT = Context(task="work")


def provide() -> int:
    return 1


def test_only_context_and_depends_are_injected() -> None:
    """A default that looks like something else is a default."""

    def function(a: int, b: Context, c: int = Depends(provide), d: object = provide, *e: Context, **f: int) -> None: ...

    hints = inspect.get_annotations(function, eval_str=True)
    del hints["e"]
    assert list(injected_parameters(inspect.signature(function), hints)) == ["b", "c"]


@pytest.mark.parametrize(
    ("positional", "args", "kwargs", "provided", "expected"),
    [
        (("a",), (1,), {}, {}, ((1,), {})),
        (("ctx", "a"), (1,), {}, {"ctx": "C"}, (("C", 1), {})),
        (("a", "ctx", "b"), (1, 2), {}, {"ctx": "C"}, ((1, "C", 2), {})),
        (("a", "ctx", "b"), (1,), {"b": 2}, {"ctx": "C"}, ((1, "C"), {"b": 2})),
        (("a", "ctx", "b"), (), {"a": 1, "b": 2}, {"ctx": "C"}, ((), {"a": 1, "b": 2, "ctx": "C"})),
        (("a", "ctx"), (1, 2, 3), {}, {"ctx": "C"}, ((1, "C", 2, 3), {})),
        (("a",), (1,), {"b": 2}, {"ctx": "C"}, ((1,), {"b": 2, "ctx": "C"})),
        (("ctx", "a", "db"), (), {"a": 1}, {"ctx": "C", "db": "D"}, (("C",), {"a": 1, "db": "D"})),
    ],
)
def test_provided_values_go_where_their_parameters_are(
    positional: tuple[str, ...], args: tuple[Any, ...], kwargs: dict[str, Any], provided: dict[str, Any], expected: Any
) -> None:
    """Callers count positions as if injected parameters did not exist."""
    assert place(positional, args, kwargs, provided) == expected


async def test_values_are_provided_once_and_closed_in_reverse() -> None:
    """One injection is one job."""
    log = []

    def outer() -> Iterator[str]:
        log.append("open outer")
        yield "outer"
        log.append("close outer")

    def inner(_: str = Depends(outer)) -> Iterator[str]:
        log.append("open inner")
        yield "inner"
        log.append("close inner")

    async with Injection(CONTEXT) as injection:
        values = await injection.fill({"a": Depends(inner), "b": Depends(outer), "c": None, "d": Depends(inner)})
    assert values == {"a": "inner", "b": "outer", "c": CONTEXT, "d": "inner"}
    assert log == ["open outer", "open inner", "close inner", "close outer"]


async def test_a_circle_is_refused() -> None:
    """With the way round it, in order."""

    def one(two: int = 0) -> int:
        return two

    one.__defaults__ = (Depends(one),)
    async with Injection(CONTEXT) as injection:
        with pytest.raises(ConfigurationError, match="one -> one"):
            await injection.fill({"a": Depends(one)})


async def test_an_exception_inside_is_never_swallowed() -> None:
    """A provider that catches everything is a bug, and must not hide another."""

    def greedy() -> Iterator[int]:
        with suppress(ValueError):
            yield 1

    with pytest.raises(ValueError, match="inside"):  # noqa: PT012
        async with Injection(CONTEXT) as injection:
            await injection.fill({"a": Depends(greedy)})
            raise ValueError("inside")


def test_outside_of_a_job_there_is_none() -> None:
    """Code that is shared with a web server asks, and gets None."""
    assert current_job() is None
    assert (CONTEXT.job, CONTEXT.attempt, CONTEXT.max_attempts, CONTEXT.headers) == (None, 1, 1, {})
