"""Calls and results as pickles, for values that JSON cannot hold. Only what was sealed with a key comes here.

Reading a pickle runs what it says, so nothing in this module may be given bytes whose seal was not opened first.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from aqueue.errors import BadArguments, NotSerializable
from aqueue.store import codec


class PickledCall(msgspec.Struct, array_like=True):
    """One call: as an Envelope, with all arguments in one pickle in the place of the first of two."""

    version: int
    task: str
    pickled: bytes
    kwargs: dict[str, msgspec.Raw]
    """Always empty."""
    headers: codec.Headers

    def arguments(self, decoder: codec.ArgumentsDecoder) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Give args and kwargs. Errors: BadArguments if they cannot be read here, or do not fit the signature."""
        args, kwargs = parts(self)
        try:
            decoder.check(args, kwargs)
        except TypeError as error:
            raise BadArguments(f"the arguments do not fit {self.task}{decoder.signature}: {error}") from error
        return args, kwargs


_decoder: Final = msgspec.json.Decoder(PickledCall)


def encode_call(task: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], headers: codec.Headers) -> bytes:
    """Write a call. Errors: NotSerializable, naming the argument."""
    try:
        pickled = pickle.dumps((args, dict(kwargs)), pickle.HIGHEST_PROTOCOL)
    except Exception:  # what is pickled may do anything
        for name, value in codec.named(args, kwargs):
            _dump(value, f"{name} of {task}")
        raise
    return msgspec.json.encode(PickledCall(codec.WIRE_VERSION, task, pickled, {}, headers))


def decode_call(data: bytes) -> PickledCall:
    """Read a call, leaving its arguments pickled. Errors: BadArguments if it is damaged or too new."""
    try:
        call = _decoder.decode(data)
    except msgspec.MsgspecError as error:
        raise BadArguments(f"the stored envelope cannot be read ({error}); enqueue the job again") from error
    codec.check_version(call.version)
    return call


def parts(call: PickledCall) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Give a call's arguments. Errors: BadArguments if they cannot be read here."""
    try:
        args, kwargs = _load(call.pickled)
    except ValueError as error:
        raise BadArguments(f"the arguments of {call.task} {error}") from error
    return tuple(args), dict(kwargs)


def encode_result(value: object, limit: int) -> bytes:
    """Write a result. Errors: NotSerializable, also beyond `limit` bytes."""
    return codec.within(_dump(value, "the result"), limit)


def decode_result(data: bytes) -> Any:
    """Read a result. Errors: ValueError if it cannot be read here."""
    return _load(data)


def largest_argument(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    """Say which argument takes most of an envelope."""
    return codec.largest([(len(_dump(value, name)), name) for name, value in codec.named(args, kwargs)])


def _dump(value: object, what: str) -> bytes:
    try:
        return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    except Exception as error:  # as above
        raise NotSerializable(f"{what} cannot be pickled ({type(value).__name__}: {error}); pass plain data") from error


def _load(data: bytes) -> Any:
    try:
        return pickle.loads(data)  # noqa: S301  # sealed by somebody with a key, see above
    except Exception as error:  # as above
        raise ValueError(f"cannot be unpickled here: {type(error).__name__}: {error}") from error
