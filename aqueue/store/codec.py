"""Bytes to values and back. The only place, with headers.py, where the fields of the wire are spelled.

An envelope is the JSON array `[version, task, args, kwargs, headers]`. Redis never looks inside; a worker decodes
`args` and `kwargs` only when it knows the task, by the annotations of the task's parameters. A newer minor
version may append elements, which older readers skip; a version that is newer than this package is for newer workers.
"""

from __future__ import annotations

import inspect
import math
import sys
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from aqueue.errors import BadArguments, NotSerializable
from aqueue.job import WORDS_OF_FAILURE, Failure, JobError
from aqueue.store.headers import OptionsOfCall

WIRE_VERSION: Final = 1
TRACEBACK_LIMIT: Final = 16_384
"""Characters of a traceback that are kept; the end says most."""
MESSAGE_LIMIT: Final = 4_096


class Headers(OptionsOfCall, omit_defaults=True, forbid_unknown_fields=False):
    """What travels with a job besides its arguments: options of this one call, and what middleware adds."""

    extra: dict[str, str] = {}  # noqa: RUF012  # msgspec gives each its own


NO_HEADERS: Final = Headers()
"""Of most calls; nobody changes it."""


class Envelope(msgspec.Struct, array_like=True):
    """One call as it lies in Redis; arguments still encoded."""

    version: int
    task: str
    args: msgspec.Raw
    kwargs: dict[str, msgspec.Raw]
    headers: Headers

    def arguments(self, decoder: ArgumentsDecoder) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Give args and kwargs. Errors: BadArguments when they do not fit the signature or its types."""
        return decoder.decode(self)


class EnvelopeTooNew(BadArguments):
    """A later release has written it, whose workers can read it."""


class _WireError(msgspec.Struct, omit_defaults=True):
    type: str
    message: str
    traceback: str = ""
    failure: str | None = None


def _encode_other(value: object) -> object:
    dump = getattr(value, "model_dump", None)  # a pydantic model, whether or not pydantic is installed here
    if callable(dump):
        return dump(mode="json")
    raise NotImplementedError(f"{type(value).__name__} objects cannot be written as JSON")


def _decode_other(type_: type, value: object) -> object:
    if type_ is object:
        return value
    validate = getattr(type_, "model_validate", None)
    if callable(validate):
        return validate(value)
    raise NotImplementedError(f"{type_!r} cannot be read from JSON")


_encoder: Final = msgspec.json.Encoder(enc_hook=_encode_other)
_canonical_encoder: Final = msgspec.json.Encoder(enc_hook=_encode_other, order="deterministic")
_envelope_decoder: Final = msgspec.json.Decoder(Envelope)
_any_decoder: Final = msgspec.json.Decoder()
_error_decoder: Final = msgspec.json.Decoder(_WireError)
NULL: Final = b"null"
UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_UNWRITABLE: Final = (TypeError, ValueError, NotImplementedError, OverflowError, RecursionError, msgspec.MsgspecError)


def encode_call(task: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], headers: Headers) -> bytes:
    """Write an envelope. Errors: NotSerializable, naming the argument."""
    try:
        data = _encoder.encode([WIRE_VERSION, task, args, kwargs, headers])
    except _UNWRITABLE as error:
        _name_culprit(task, args, kwargs)
        raise NotSerializable(
            f"the headers of {task} cannot be sent ({type(error).__name__}: {error}); middleware must send plain text."
        ) from error
    if b"null" in data:  # JSON has no nan and no infinity, and msgspec writes null instead
        _refuse_unwritable_floats(task, args, kwargs)
    return data


def _name_culprit(task: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    for name in kwargs:
        if _writable(name) != name:
            raise NotSerializable(f"the argument name {_writable(name)!r} of {task} is not text that UTF-8 can hold.")
    for name, value in named(args, kwargs):
        try:
            _encoder.encode(value)
        except _UNWRITABLE as error:
            raise NotSerializable(
                f"{name} of {task} cannot be sent ({type(value).__name__}: {error}); "
                "pass plain data, a dataclass, a msgspec Struct or a pydantic model instead."
            ) from error


def _refuse_unwritable_floats(task: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    for name, value in named(args, kwargs):
        if _loses_a_float(value):
            raise NotSerializable(
                f"{name} of {task} has a float that JSON cannot hold (nan or inf); pass None or text."
            )


def _loses_a_float(value: object) -> bool:
    """Say whether JSON turns a float somewhere inside into null; records are taken apart as the encoder does."""
    return _has_unwritable_float(msgspec.to_builtins(value, enc_hook=_encode_other))


def _has_unwritable_float(value: object) -> bool:
    """Look through it without recursion: what the encoder can still descend into may be too deep for Python."""
    left = [value]
    while left:
        one = left.pop()
        if isinstance(one, float) and not math.isfinite(one):
            return True
        if isinstance(one, dict):
            left += one.values()
        elif isinstance(one, list | tuple):
            left += one
    return False


def named(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [*((f"argument {i}", value) for i, value in enumerate(args, 1)), *kwargs.items()]


def largest_argument(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    """Say which argument takes most of an envelope."""
    return largest([(len(_encoder.encode(value)), name) for name, value in named(args, kwargs)])


def largest(sizes: Sequence[tuple[int, str]]) -> str:
    """Say which of some arguments, given by size and name, is the largest."""
    size, name = max(sizes, default=(0, "none"))
    return f"{name} alone takes {size}"


def decode_envelope(data: bytes) -> Envelope:
    """Read an envelope, leaving its arguments encoded. Errors: BadArguments if it is damaged, EnvelopeTooNew."""
    try:
        envelope = _envelope_decoder.decode(data)
    except UNREADABLE as error:
        raise BadArguments(f"the stored envelope cannot be read ({error}); enqueue the job again") from error
    if envelope.version != WIRE_VERSION:  # said here, too, for a call less per job
        check_version(envelope.version)
    return envelope


def check_version(version: int) -> None:
    """Raise for an envelope of which this package knows nothing. Errors: EnvelopeTooNew, BadArguments."""
    if version != WIRE_VERSION:
        kind = EnvelopeTooNew if version > WIRE_VERSION else BadArguments
        raise kind(f"the stored envelope has version {version}, this worker reads {WIRE_VERSION}; upgrade the worker")


def decode_plain(data: bytes | msgspec.Raw) -> Any:
    """Read JSON without knowing any type."""
    return _any_decoder.decode(data)


def canonical(value: object) -> str:
    """Write a value as text, equal values alike. Errors: NotSerializable."""
    try:
        return _canonical_encoder.encode(value).decode()
    except _UNWRITABLE as error:
        raise NotSerializable(f"an argument that a key is made of cannot be written as JSON ({error})") from error


def encode_result(value: object, limit: int) -> bytes:
    """Write a result. Errors: NotSerializable, also beyond `limit` bytes."""
    try:
        data = NULL if value is None else _encoder.encode(value)
    except _UNWRITABLE as error:
        raise NotSerializable(
            f"the result cannot be stored ({type(value).__name__}: {error}); return plain data or None"
        ) from error
    if b"null" in data and value is not None and _loses_a_float(value):
        raise NotSerializable("the result has a float that JSON cannot hold (nan or inf); return None or text")
    return data if len(data) <= limit else within(data, limit)


def within(result: bytes, limit: int) -> bytes:
    """Give an encoded result back unless it is too large. Errors: NotSerializable."""
    if len(result) > limit:
        raise NotSerializable(
            f"the result takes {len(result)} bytes, more than the {limit} allowed; "
            "store it elsewhere and return where it is"
        )
    return result


def result_decoder(annotation: Any) -> Callable[[bytes], Any]:
    """Make a reader for results of one type; it raises ValueError for data that is not of this type."""
    decoder = _decoder(annotation) or _any_decoder

    def read(data: bytes) -> Any:
        try:
            return decoder.decode(data)
        except (*UNREADABLE, TypeError, NotImplementedError) as error:
            raise ValueError(f"{annotation!r} was annotated: {error}") from error

    return read


def _decoder(annotation: Any) -> msgspec.json.Decoder[Any] | None:
    if annotation in (inspect.Parameter.empty, Any, object):
        return _any_decoder
    try:
        return msgspec.json.Decoder(annotation, dec_hook=_decode_other)
    except TypeError:  # msgspec says so of unions it cannot tell apart
        return None


@dataclass(slots=True)
class ArgumentsDecoder:
    """Reads the arguments of one task by the annotations of its parameters."""

    task: str
    signature: inspect.Signature
    hints: Mapping[str, Any]
    _cache: dict[str, msgspec.json.Decoder[Any]] = field(default_factory=dict)
    _positional: dict[int, msgspec.json.Decoder[Any]] = field(default_factory=dict)
    _counts: range = field(init=False)
    """How many arguments may be passed by position when none is by keyword."""

    def __post_init__(self) -> None:
        self._counts = _positional_counts(self.signature)

    def check(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Raise the TypeError of a call that does not fit the signature."""
        if kwargs or len(args) not in self._counts:  # binding costs as much as all the rest of an enqueue
            self.signature.bind(*args, **kwargs)

    def decode(self, envelope: Envelope) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return args and kwargs. Errors: BadArguments when they do not fit the signature or its types."""
        try:
            raws = _raw_list.decode(envelope.args)
            self.check(raws, envelope.kwargs)
            args = self._args(len(raws)).decode(envelope.args) if raws else ()
            kwargs = {name: self._by_name(name).decode(raw) for name, raw in envelope.kwargs.items()}
        except UNREADABLE as error:
            raise BadArguments(f"an argument of {self.task} has another type than its annotation: {error}") from error
        except (TypeError, ValueError, NotImplementedError) as error:
            raise BadArguments(f"the arguments do not fit {self.task}{self.signature}: {error}") from error
        return tuple(args), kwargs

    def _args(self, count: int) -> msgspec.json.Decoder[Any]:
        known = self._positional.get(count)
        if known is None:
            types = [self._safe(annotation) for annotation in self._annotations(count)]
            annotation = typing.cast("Any", tuple)[tuple(types)] if types else tuple[()]
            known = self._positional[count] = msgspec.json.Decoder(annotation, dec_hook=_decode_other)
        return known

    def _annotations(self, count: int) -> list[Any]:
        found: list[Any] = []
        for parameter in self.signature.parameters.values():
            if parameter.kind is parameter.VAR_POSITIONAL:
                found += [self.hints.get(parameter.name, Any)] * (count - len(found))
            elif parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
                found.append(self.hints.get(parameter.name, Any))
        return found[:count]

    def _by_name(self, name: str) -> msgspec.json.Decoder[Any]:
        known = self._cache.get(name)
        if known is None:
            catch_all = next((p.name for p in self.signature.parameters.values() if p.kind is p.VAR_KEYWORD), name)
            parameter = name if name in self.signature.parameters else catch_all
            known = self._cache[name] = _decoder(self.hints.get(parameter, Any)) or _any_decoder
        return known

    @staticmethod
    def _safe(annotation: Any) -> Any:
        return Any if _decoder(annotation) is None else annotation


def _positional_counts(signature: inspect.Signature) -> range:
    least, most = 0, 0
    for parameter in signature.parameters.values():
        required = parameter.default is parameter.empty
        match parameter.kind:
            case parameter.POSITIONAL_ONLY | parameter.POSITIONAL_OR_KEYWORD:
                least, most = least + required, most + 1
            case parameter.VAR_POSITIONAL:
                most = sys.maxsize - 1
            case parameter.KEYWORD_ONLY if required:
                return range(0)
            case _:
                continue
    return range(least, most + 1)


_raw_list: Final = msgspec.json.Decoder(list[msgspec.Raw])


def encode_error(error: JobError) -> bytes:
    return _encoder.encode(
        _WireError(
            _writable(error.type[:MESSAGE_LIMIT]),
            _writable(error.message[:MESSAGE_LIMIT]),
            _writable(error.traceback[-TRACEBACK_LIMIT:]),
            error.failure,
        )
    )


def _writable(text: str) -> str:
    """Escape what UTF-8 cannot hold, such as the undecodable bytes of a file name."""
    return text.encode("utf-8", "backslashreplace").decode()


def decode_error(data: bytes | None) -> JobError:
    """Read a stored error; whatever cannot be read becomes its own message."""
    try:
        wire = _error_decoder.decode(data or b"")
    except UNREADABLE:
        return JobError(type="Unknown", message=(data or b"no error was stored").decode("utf-8", "replace"))
    failure = Failure(wire.failure) if wire.failure in WORDS_OF_FAILURE else None
    return JobError(type=wire.type, message=wire.message, traceback=wire.traceback, failure=failure)


class WorkerInfo(msgspec.Struct, omit_defaults=True):
    """What a worker says of itself on one queue."""

    host: str
    pid: int
    concurrency: int
    version: str
    weight: int | None = None
    cap: int | None = None


_info_decoder: Final = msgspec.json.Decoder(WorkerInfo)


def encode_worker(info: WorkerInfo) -> str:
    return _encoder.encode(info).decode()


def worker_host(info: str) -> str:
    """Give the host of a worker by what it said of itself; empty if it said nothing readable."""
    try:
        return _info_decoder.decode(info).host
    except UNREADABLE:
        return ""


def worker_name(info: str) -> str:
    """Give host and pid of a worker by what it said of itself; empty if it said nothing readable."""
    try:
        said = _info_decoder.decode(info)
    except UNREADABLE:
        return ""
    return f"{said.host}:{said.pid}"
