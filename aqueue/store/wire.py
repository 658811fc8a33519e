"""What a queue writes into Redis and takes from there: values to bytes and back, sealed if it has keys.

Chosen once per queue, so that a queue without keys pays nothing for those that have some.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias, TypeVar

import msgspec

from aqueue import errors
from aqueue.errors import AqueueError, BadArguments, ConfigurationError, PayloadRefused
from aqueue.job import JobError, JobId, QueueName
from aqueue.job_ids import new_job_id
from aqueue.keyring import UNSEALED, AnySeal, Encryption, seal_of_environment
from aqueue.settings import Settings
from aqueue.store import codec, pickling
from aqueue.store.records import Unique
from aqueue.store.sealing import JSON, PICKLE, Purpose, Safe, is_sealed, keyed_id, no_keys, outside, refused

R = TypeVar("R")
StoredCall: TypeAlias = codec.Envelope | pickling.PickledCall


class Look(NamedTuple):
    """What is shown of a stored call, to people who need not have a key."""

    payload: str
    """`plain`, `signed`, `encrypted pickle` and the like."""
    task: str
    args: list[Any] | None
    kwargs: dict[str, Any] | None


class Wire:
    """JSON, unsealed."""

    def __init__(self, queue: QueueName) -> None:
        self.queue = queue
        self.encode_call = codec.encode_call
        self.largest_argument = codec.largest_argument

    @property
    def description(self) -> str:
        """Say what is done to payloads; empty where nothing is."""
        return ""

    def new_id(self, claim: Unique | None, given: JobId | None = None) -> JobId:  # noqa: ARG002  # see sealed wires
        """Make the id of a job, which may claim a key; of one that is given, if it is."""
        return given or new_job_id()

    def seal_call(self, job_id: JobId, task: str, encoded: bytes, claim: Unique | None = None) -> bytes:  # noqa: ARG002  # as above
        """Make what `encode_call` gave into the payload of one job, or of the one that it may replace."""
        return encoded

    def seal_schedule(self, schedule_id: str, task: str, encoded: bytes) -> bytes:  # noqa: ARG002  # as above
        """Make what `encode_call` gave into what is stored of a schedule."""
        return encoded

    def renew_schedule(self, schedule_id: str, data: bytes) -> bytes:  # noqa: ARG002  # as above
        """Seal what is stored of a schedule anew, with today's key, where it can be opened."""
        return data

    def seal_slot(self, schedule_id: str, data: bytes, job_id: JobId, claim: Unique | None) -> bytes:  # noqa: ARG002  # as above
        """Make what is stored of a schedule into the payload of one of its jobs. Errors: PayloadRefused."""
        if is_sealed(data):
            raise no_keys(JobId(schedule_id), "schedule", data)
        return data

    def open_call(self, job_id: JobId, data: bytes) -> StoredCall:
        """Read a payload, leaving its arguments encoded. Errors: PayloadRefused, BadArguments."""
        try:
            return codec.decode_envelope(data)
        except BadArguments:
            if is_sealed(data):
                raise no_keys(job_id, "call", data) from None
            raise

    def read_call(self, encoded: bytes) -> StoredCall:
        """Read what `encode_call` gave. Errors: BadArguments."""
        return codec.decode_envelope(encoded)

    def parts(self, call: StoredCall) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Give a stored call's arguments as `encode_call` takes them, unread if it can. Errors: BadArguments."""
        if isinstance(call, pickling.PickledCall):
            return pickling.parts(call)
        try:
            return tuple(msgspec.json.decode(call.args, type=list[msgspec.Raw])), dict(call.kwargs)
        except codec.UNREADABLE as error:
            raise BadArguments(f"the arguments of {call.task} cannot be read ({error})") from error

    def encode_result(self, job_id: JobId, value: object, limit: int) -> bytes:  # noqa: ARG002  # as above
        """Write a result. Errors: NotSerializable, also beyond `limit` bytes."""
        return codec.encode_result(value, limit)

    def decode_result(self, job_id: JobId, data: bytes, decode: Callable[[bytes], R]) -> R:
        """Read a result with a reader for JSON. Errors: PayloadRefused; ValueError for another type."""
        if is_sealed(data):
            raise no_keys(job_id, "result", data)
        return decode(data)

    def encode_error(self, job_id: JobId, error: JobError) -> bytes:  # noqa: ARG002  # as above
        return codec.encode_error(error)

    def decode_error(self, job_id: JobId, data: bytes | None) -> JobError:
        """Read a stored error; whatever cannot be read becomes its own message."""
        if data is not None and is_sealed(data):
            return _unread(no_keys(job_id, "error", data))
        return codec.decode_error(data)

    def look(self, job_id: JobId, data: bytes, purpose: Purpose = "call") -> Look:  # noqa: ARG002  # as above
        """Show a payload, or a schedule's, as far as it lies open; nothing is checked or unpickled for it."""
        return _look(data)


class SealedWire(Wire):
    """JSON or pickle, sealed for one job; whatever is read is known to come from somebody with a key."""

    def __init__(self, queue: QueueName, seal: AnySeal, *, pickled: bool) -> None:
        super().__init__(queue)
        self._seal = seal
        self._safe = Safe(queue, seal)
        self._form = PICKLE if pickled else JSON
        if pickled:
            self.encode_call = pickling.encode_call
            self.largest_argument = pickling.largest_argument

    @property
    def description(self) -> str:
        seal = self._seal
        written = "not sealed yet" if seal.seals == UNSEALED else f"{seal.word} with {seal.seals}"
        others = ", ".join(key_id for key_id in seal.keys if key_id not in (seal.seals, UNSEALED))
        taken = f", {others} taken too" if others else ""
        warned = ", UNSEALED ones taken too" if seal.takes_unsealed else ""
        return f"payloads {written}{taken}{warned}{', pickled' if self._form == PICKLE else ''}"

    def new_id(self, claim: Unique | None, given: JobId | None = None) -> JobId:
        plain = given or new_job_id()
        return plain if claim is None else keyed_id(plain, claim.digest)

    def seal_call(self, job_id: JobId, task: str, encoded: bytes, claim: Unique | None = None) -> bytes:
        replaces = claim is not None and claim.replace
        return self._safe.close("call", job_id, encoded, form=self._form, task=task, of_key=replaces)

    def seal_schedule(self, schedule_id: str, task: str, encoded: bytes) -> bytes:
        return self._safe.close("schedule", JobId(schedule_id), encoded, form=self._form, task=task)

    def renew_schedule(self, schedule_id: str, data: bytes) -> bytes:
        try:
            form, body = self._safe.open("schedule", JobId(schedule_id), data)
        except PayloadRefused:  # whoever may edit need not have the key
            return data
        task = outside(data).task or _look(data).task
        return self._safe.close("schedule", JobId(schedule_id), body, form=form, task=task)

    def seal_slot(self, schedule_id: str, data: bytes, job_id: JobId, claim: Unique | None) -> bytes:
        form, body = self._safe.open("schedule", JobId(schedule_id), data)
        task = outside(data).task or _look(data).task
        replaces = claim is not None and claim.replace
        return self._safe.close("call", job_id, body, form=form, task=task, of_key=replaces)

    def open_call(self, job_id: JobId, data: bytes) -> StoredCall:
        form, body = self._safe.open("call", job_id, data)
        if form == JSON:
            return codec.decode_envelope(body)
        self._check_form(job_id, "call", form)
        return pickling.decode_call(body)

    def _check_form(self, job_id: JobId, purpose: Purpose, form: str) -> None:
        if form != PICKLE or self._form != PICKLE:
            raise refused(
                job_id, purpose, f"are of the form {form!r}, and queue {self.queue} reads {self._form} here; "
                f"choose Settings(serializer={form!r}) here as there, or in neither place"
            )  # fmt: skip

    def read_call(self, encoded: bytes) -> StoredCall:
        return pickling.decode_call(encoded) if self._form == PICKLE else codec.decode_envelope(encoded)

    def parts(self, call: StoredCall) -> tuple[tuple[Any, ...], dict[str, Any]]:
        args, kwargs = super().parts(call)
        if self._form == PICKLE and isinstance(call, codec.Envelope):
            args, kwargs = tuple(map(codec.decode_plain, args)), {k: codec.decode_plain(v) for k, v in kwargs.items()}
        return args, kwargs

    def encode_result(self, job_id: JobId, value: object, limit: int) -> bytes:
        encode = pickling.encode_result if self._form == PICKLE else codec.encode_result
        return self._safe.close("result", job_id, encode(value, limit), form=self._form)

    def decode_result(self, job_id: JobId, data: bytes, decode: Callable[[bytes], R]) -> R:
        form, body = self._safe.open("result", job_id, data)
        if form == JSON:
            return decode(body)
        self._check_form(job_id, "result", form)
        try:
            result: R = pickling.decode_result(body)
        except ValueError as error:
            raise errors.JobError(
                job_id, f"The result of job {job_id} {error}; install here what the worker has."
            ) from error
        return result

    def encode_error(self, job_id: JobId, error: JobError) -> bytes:
        """Encrypt, as it may quote arguments; signing it would promise what scripts, which write some, cannot keep."""
        encoded = codec.encode_error(error)
        return self._safe.close("error", job_id, encoded) if isinstance(self._seal, Encryption) else encoded

    def decode_error(self, job_id: JobId, data: bytes | None) -> JobError:
        if data is None or not is_sealed(data):
            return codec.decode_error(data)
        try:
            return codec.decode_error(self._safe.open("error", job_id, data)[1])
        except PayloadRefused as error:
            return _unread(error)

    def look(self, job_id: JobId, data: bytes, purpose: Purpose = "call") -> Look:
        shown = _look(data)
        try:
            form, body = self._safe.open(purpose, job_id, data)
            return _arguments(shown, body) if form == JSON else shown
        except PayloadRefused:
            return shown._replace(args=None, kwargs=None)


def wire_of(queue: QueueName, settings: Settings) -> Wire:
    """Choose how a queue writes and reads, by its settings, and by the environment where they name no seal.

    Errors: ConfigurationError for keys that cannot be used, and for pickles that would not be sealed.
    """
    seal = settings.seal or seal_of_environment()
    pickled = settings.serializer == PICKLE
    if pickled and (seal is None or seal.seals == UNSEALED):
        raise ConfigurationError(
            "serializer='pickle' is taken only with a key that seals, since reading a pickle runs what it says; "
            "pass Settings(seal=Signing(...)) or Encryption, with a key before `none`, or stay with JSON."
        )
    return Wire(queue) if seal is None else SealedWire(queue, seal, pickled=pickled)


def line_of(data: bytes) -> tuple[str, codec.Envelope | None]:
    """Give the task of a payload, and the envelope where it lies open as JSON. Errors: BadArguments."""
    found = outside(data)
    if found.body is None or found.form != JSON:
        return found.task, None
    envelope = codec.decode_envelope(found.body)
    return envelope.task, envelope


def _look(data: bytes) -> Look:
    found = outside(data)
    payload = " ".join(filter(None, (found.word or "plain", found.form if found.form != JSON else "")))
    shown = Look(payload, found.task or "?", None, None)
    return shown if found.body is None or found.form != JSON else _arguments(shown, found.body)


def _arguments(shown: Look, body: bytes) -> Look:
    try:
        call = codec.decode_envelope(body)
        kwargs = {name: codec.decode_plain(raw) for name, raw in call.kwargs.items()}
        return shown._replace(task=call.task, args=codec.decode_plain(call.args), kwargs=kwargs)
    except (AqueueError, *codec.UNREADABLE):
        return shown


def _unread(error: PayloadRefused) -> JobError:
    return JobError(type=type(error).__name__, message=str(error))
