"""Secrets with names, in the order in which they come into use. Nothing here computes with them, or shows them.

A ring is text, `id:key,id:key`, so that it fits a secret store and an environment variable alike: the first entry
seals what is written, every entry opens what is read. The entry `none` stands for no seal at all, so that going from
nothing to a key, from a key to the next, and back, are the same three steps.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

from aqueue.errors import ConfigurationError

KEY_BYTES: Final = 32
"""Of a key: as many as SHA-256 gives and AES-256 takes."""
UNSEALED: Final = "none"

_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,32}")
_HOW: Final = "write id:key,id:key with keys of 32 bytes in base64, as `openssl rand -base64 32` makes them"


class Seal:
    """How payloads are protected, and with which keys. Choose `Signing` or `Encryption`."""

    __slots__ = ("_keys", "seals")

    word: Literal["signed", "encrypted"]
    """The word for what is sealed, on the wire and to people."""
    variable: str
    """The environment variable that holds such keys."""

    def __init__(self, keys: str) -> None:
        """Read a ring. Errors: ConfigurationError, which tells ids and never keys."""
        self._keys, problem = _read(keys)
        if problem:
            del keys  # whoever shows the variables of this frame shows no secret
            raise ConfigurationError(f"The keys of {type(self).__name__} cannot be used: {problem}.")
        self.seals = next(iter(self._keys))
        """The id of the key that seals, or `none`."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(self._keys)})"

    @property
    def keys(self) -> Mapping[str, bytes]:
        """Every key by its id; that of `none` is empty."""
        return self._keys

    @property
    def takes_unsealed(self) -> bool:
        return UNSEALED in self._keys


class Signing(Seal):
    """Payloads are signed with HMAC-SHA-256: readable by everybody, changed or moved by nobody without a key."""

    __slots__ = ()
    word = "signed"
    variable = "AQUEUE_SIGNING_KEYS"


class Encryption(Seal):
    """Payloads, results and errors are encrypted and authenticated with AES-256-GCM.

    Needs the extra `encryption`. Signing them as well would add nothing.
    """

    __slots__ = ()
    word = "encrypted"
    variable = "AQUEUE_ENCRYPTION_KEYS"


AnySeal: TypeAlias = Signing | Encryption


def seal_of_environment() -> AnySeal | None:
    """Read the ring that the environment names, if any. Errors: ConfigurationError, also for two rings."""
    named = [kind for kind in (Signing, Encryption) if kind.variable in os.environ]
    if not named:
        return None
    if len(named) > 1:
        raise ConfigurationError(
            f"{' and '.join(kind.variable for kind in named)} are both set; encryption authenticates as well, "
            f"so set {Encryption.variable} alone."
        )
    (kind,) = named
    try:
        return kind(os.environ[kind.variable])
    except ConfigurationError as error:
        raise ConfigurationError(f"{kind.variable}: {error}") from None


def _read(text: object) -> tuple[dict[str, bytes], str]:
    """Give the keys by id, or what is wrong with them, in words that quote no key."""
    if not isinstance(text, str):
        return {}, f"they are {type(text).__name__}, not text; {_HOW}"
    keys: dict[str, bytes] = {}
    for place, entry in enumerate(text.split(","), 1):
        name, colon, key = (part.strip() for part in entry.partition(":"))
        if not colon and name != UNSEALED:
            return {}, f"entry {place} is no id:key; {_HOW}"
        if not _ID.fullmatch(name) or (colon and name == UNSEALED):
            return {}, f"the id of entry {place} is not 1 to 32 letters, digits, '.', '_' or '-', or is 'none'; {_HOW}"
        if name in keys:
            return {}, f"the id {name!r} stands for two keys; give each its own"
        keys[name] = _decoded(key) if colon else b""
        if colon and len(keys[name]) != KEY_BYTES:
            return {}, f"the key {name!r} is not {KEY_BYTES} bytes in base64; {_HOW}"
    return keys, "" if any(keys.values()) else f"there is no key among them; {_HOW}"


def _decoded(key: str) -> bytes:
    try:
        return base64.b64decode(key.replace("-", "+").replace("_", "/"), validate=True)
    except (binascii.Error, ValueError):
        return b""
