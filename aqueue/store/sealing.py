"""Sealed payloads: how they look in Redis, and who can open them. Knows bytes, and nothing of what they mean.

    <signed|encrypted> <json|pickle> <key id> <task>[ key]\\n<seal><body>

No JSON begins like that, so sealed and unsealed are told apart by their first word. What is not sealed but bound is
the context: purpose, queue, job id and the line above. A payload that was moved to another job, task or queue, or a
result that was put where arguments belong, has another context, and its seal does not fit.

A call that replaces what a waiting job was to do cannot know that job's id. It is bound to the unique key that both
claim, which the ids of such jobs end in, and says so with the word `key`.
"""

from __future__ import annotations

import hmac
import os
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, Protocol, TypeAlias

import msgspec

from aqueue.errors import ConfigurationError, PayloadRefused
from aqueue.job import JobId, QueueName
from aqueue.keyring import KEY_BYTES, UNSEALED, AnySeal, Encryption, Signing

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

Purpose: TypeAlias = Literal["call", "result", "error", "schedule"]
"""The last is the call of a schedule, bound to the schedule's id: it fits no job before it is sealed for one."""

JSON: Final = "json"
PICKLE: Final = "pickle"

SIGNATURE_BYTES: Final = 32
NONCE_BYTES: Final = 12
"""What GCM is made for. Each job, or unique key, has a cipher key of its own, so random ones do not repeat."""

LINE_BYTES: Final = 2048
"""The longest of ours takes less: a task's name has its limit, and what strangers write is not to fill the log."""
OF_KEY: Final = "key"
KEYED: Final = "~"
KEYED_DIGITS: Final = 20
"""Of the digest, in an id: nobody without a key can choose what is sealed, let alone its digest."""

_MARKS: Final = tuple(f"{kind.word} ".encode() for kind in (Signing, Encryption))
_SAID: Final = {
    "call": "arguments of job",
    "result": "result of job",
    "error": "error of job",
    "schedule": "arguments of schedule",
}
_encode: Final = msgspec.json.Encoder().encode


class Outside(NamedTuple):
    """What can be read of a payload without a key, and is not to be trusted."""

    word: str
    """`signed` or `encrypted`; empty for what is not sealed."""
    form: str
    key_id: str
    task: str
    of_key: bool
    line: bytes
    sealed: bytes
    """Seal and body."""

    @property
    def body(self) -> bytes | None:
        """The body, where it lies open."""
        if self.word == Signing.word:
            return self.sealed[SIGNATURE_BYTES:]
        return None if self.word else self.sealed


def keyed_id(job_id: JobId, digest: str) -> JobId:
    """Make the id of a job that claims a unique key."""
    return JobId(f"{job_id}{KEYED}{digest[:KEYED_DIGITS]}")


def is_sealed(data: bytes) -> bool:
    return data.startswith(_MARKS)


def outside(data: bytes) -> Outside:
    """Read the first line of a payload."""
    if not is_sealed(data):
        return Outside("", JSON, "", "", False, b"", data)
    line = data[:LINE_BYTES].partition(b"\n")[0]
    word, form, key_id, task, of_key, *_ = [*line.decode("utf-8", "replace").split(" "), "", "", "", ""]
    return Outside(word, form, key_id, task, of_key == OF_KEY, line, data[len(line) + 1 :])


class Safe:
    """Seals what is written for one queue, and opens what is read there."""

    def __init__(self, queue: QueueName, seal: AnySeal) -> None:
        self._queue = queue
        self._seal = seal
        self._algorithm: _Algorithm = _Signature() if isinstance(seal, Signing) else _Cipher()

    def close(
        self, purpose: Purpose, job_id: JobId, body: bytes, *, form: str = JSON, task: str = "", of_key: bool = False
    ) -> bytes:
        """Seal for a job, or all jobs of its unique key, with the first key; where that is `none`, leave it at that."""
        seal = self._seal
        if seal.seals == UNSEALED:
            return body
        line = f"{seal.word} {form} {seal.seals} {task}{f' {OF_KEY}' if of_key else ''}".encode()
        context = self._context(purpose, job_id, line, of_key=of_key)
        sealed = self._algorithm.close(seal.keys[seal.seals], context, body)
        return line + b"\n" + sealed

    def open(self, purpose: Purpose, job_id: JobId, data: bytes) -> tuple[str, bytes]:
        """Give form and body, known to come from somebody with a key.

        Errors: PayloadRefused for all else.
        """
        found = outside(data)
        if not found.word and self._seal.takes_unsealed:
            return JSON, data
        problem = self._distrust(found)
        if problem:
            raise refused(job_id, purpose, problem)
        context = self._context(purpose, job_id, found.line, of_key=found.of_key)
        body = self._algorithm.open(self._seal.keys[found.key_id], context, found.sealed)
        if body is None:
            raise refused(
                job_id, purpose, "are not what was sealed for it: changed, or moved from another job, task or queue, "
                "or sealed with another key of the same id; find out who else writes to the server"
            )  # fmt: skip
        return found.form, body

    def _context(self, purpose: Purpose, job_id: JobId, line: bytes, *, of_key: bool) -> bytes:
        """Write what a body is bound to. Array and line end where they end: nothing can slip from one to the next."""
        bound = job_id.rpartition(KEYED)[2] if of_key else job_id
        return _encode([purpose, self._queue, bound]) + line + b"\n"

    def _distrust(self, found: Outside) -> str:
        seal = self._seal
        if not found.word and not found.sealed:
            return "are gone, somebody has deleted them; enqueue it again"
        if not found.word:
            return (
                f"are not {seal.word}, and queue {self._queue} takes only what is; give its sender the key, or take "
                f"unsealed jobs for a while with `none` at the end of {seal.variable}"
            )
        if found.word != seal.word:
            return f"are {found.word}, and queue {self._queue} has keys for what is {seal.word}; use one of both"
        if found.key_id not in seal.keys or found.key_id == UNSEALED:
            known = ", ".join(seal.keys)
            return f"are {seal.word} with a key {found.key_id[:32]!r} that is not here ({known}); add it"
        return ""


def refused(job_id: JobId, purpose: Purpose, problem: str) -> PayloadRefused:
    """Say why a payload is not taken; `problem` goes on after "The arguments of job X"."""
    if purpose in ("result", "error"):
        problem = problem.replace("are ", "is ", 1)
    return PayloadRefused(job_id, f"The {_SAID[purpose]} {job_id} {problem}.")


def no_keys(job_id: JobId, purpose: Purpose, data: bytes) -> PayloadRefused:
    """Say that a sealed payload came to somebody without any key."""
    word = outside(data).word
    variable = next(kind.variable for kind in (Signing, Encryption) if kind.word == word)
    return refused(job_id, purpose, f"are {word}, and this process has no keys; set {variable} or Settings(seal=...)")


class _Algorithm(Protocol):
    """What a seal is made of."""

    def close(self, key: bytes, context: bytes, body: bytes) -> bytes: ...
    def open(self, key: bytes, context: bytes, sealed: bytes) -> bytes | None: ...


class _Signature:
    """HMAC-SHA-256 over context and body."""

    def close(self, key: bytes, context: bytes, body: bytes) -> bytes:
        return hmac.digest(key, context + body, "sha256") + body

    def open(self, key: bytes, context: bytes, sealed: bytes) -> bytes | None:
        signature, body = sealed[:SIGNATURE_BYTES], sealed[SIGNATURE_BYTES:]
        return body if hmac.compare_digest(signature, hmac.digest(key, context + body, "sha256")) else None


class _Cipher:
    """AES-256-GCM under a key that HKDF derives for each context, which is authenticated data as well.

    One key for all would be worn out by 2^32 random nonces, which is half a day of a busy queue.
    """

    def __init__(self) -> None:
        try:
            from cryptography.exceptions import InvalidTag  # noqa: PLC0415  # an extra
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415
            from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415
            from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand  # noqa: PLC0415
        except ImportError:
            raise ConfigurationError(
                'Encryption needs a library that is not here; install it with pip install "aqueue-redis[encryption]".'
            ) from None
        self._wrong = InvalidTag

        def make(key: bytes, context: bytes) -> AESGCM:
            return AESGCM(HKDFExpand(SHA256(), KEY_BYTES, context).derive(key))

        self._make = make

    def close(self, key: bytes, context: bytes, body: bytes) -> bytes:
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._make(key, context).encrypt(nonce, body, context)

    def open(self, key: bytes, context: bytes, sealed: bytes) -> bytes | None:
        try:
            return self._make(key, context).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], context)
        except (self._wrong, ValueError):  # ValueError: cut so short that there is no nonce
            return None
