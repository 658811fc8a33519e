"""Other arguments for a job that is stored already. Nothing here awaits, so whatever is refused has left no trace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from aqueue.errors import AqueueError
from aqueue.identity import gate_words
from aqueue.job import JobId
from aqueue.middleware import Outgoing
from aqueue.settings import Settings
from aqueue.store import codec
from aqueue.submission import check_size, outgoing
from aqueue.task import Call, Task

if TYPE_CHECKING:
    from aqueue.queue import Queue

Arguments: TypeAlias = tuple[tuple[Any, ...], dict[str, Any]]
"""Those by position and those by name."""


class Changes(msgspec.Struct, frozen=True):
    """Arguments that take the place of those by position, and of those by name; None keeps them."""

    args: Sequence[Any] | None
    kwargs: Mapping[str, Any] | None

    def of(self, old: Arguments) -> Arguments:
        """Give the arguments with these changes."""
        return old[0] if self.args is None else tuple(self.args), old[1] if self.kwargs is None else dict(self.kwargs)


class Amended(msgspec.Struct, frozen=True, gc=False):
    """A stored call with other arguments, sealed for its job; `limits` are the new gates, None if they stay."""

    envelope: bytes
    limits: str | None


def amended(queue: Queue, job_id: JobId, payload: bytes, limits: str, changes: Changes) -> Amended:
    """Give a stored job other arguments, and keep its headers.

    Gates that went by an argument go by the new one, unless the job was given gates of its own.
    Errors: PayloadRefused, BadArguments, NotSerializable.
    """
    wire, settings, stored = queue.wire, queue.settings, queue.wire.open_call(job_id, payload)
    old = wire.parts(stored)
    new = changes.of(old)
    task = queue.tasks.get(stored.task)
    envelope = wire.encode_call(stored.task, *new, stored.headers)
    check_size(envelope, Outgoing(stored.task, *new), settings, wire)
    if task is not None:
        wire.read_call(envelope).arguments(task.arguments)
    sealed = wire.seal_call(job_id, stored.task, envelope)
    if task is None or limits != _gates(task, old, settings):
        return Amended(sealed, None)
    return Amended(sealed, _gates(task, new, settings))


def _gates(task: Task[..., Any], arguments: Arguments, settings: Settings) -> str | None:
    """Give the gates of a call of a task without options of its own; None if it does not fit the task."""
    args, kwargs = arguments
    call: Call[Any] = Call(task, tuple(map(_plain, args)), {name: _plain(value) for name, value in kwargs.items()})
    try:
        return gate_words(call, outgoing(call), settings)
    except AqueueError:
        return None


def _plain(value: Any) -> Any:
    """Read an argument that is kept, and so still encoded."""
    return codec.decode_plain(value) if isinstance(value, msgspec.Raw) else value
