"""Rings of keys: what is taken, what is refused, and that no key is ever shown."""

from __future__ import annotations

import base64
import dataclasses
import logging
import sys
import traceback
from typing import Any

import pytest

from aqueue import ConfigurationError, Encryption, Queue, Settings, Signing
from aqueue.keyring import KEY_BYTES, seal_of_environment

BYTES = {"new": b"\xfb\xff" * 16, "old": b"o" * 32}
TEXT = {name: base64.b64encode(key).decode() for name, key in BYTES.items()}
RING = f"new:{TEXT['new']},old:{TEXT['old']}"
SIGNING, ENCRYPTION = "AQUEUE_SIGNING_KEYS", "AQUEUE_ENCRYPTION_KEYS"

kinds = pytest.mark.parametrize("kind", [Signing, Encryption])


@kinds
def test_a_ring_is_in_the_order_in_which_it_was_written(kind: type[Signing | Encryption]) -> None:
    """The first seals; a rotation is nothing but another order."""
    ring = kind(RING)
    assert (ring.seals, list(ring.keys.items()), ring.takes_unsealed) == ("new", list(BYTES.items()), False)
    assert kind(f"none,{RING}").seals == "none"
    assert kind(f" {RING} , none ").takes_unsealed


def test_both_alphabets_of_base64_are_read() -> None:
    """Secret stores like the one without slashes."""
    assert "+" in TEXT["new"]
    assert "/" in TEXT["new"]
    assert dict(Signing(f"new:{base64.urlsafe_b64encode(BYTES['new']).decode()}").keys) == {"new": BYTES["new"]}


SECRET = base64.b64encode(b"this must never be shown to you!").decode()
SHORT = base64.b64encode(b"this must never be shown").decode()
BAD = {
    "empty": ("", "entry 1"),
    "no key": ("none", "no key"),
    "bytes": (SECRET.encode(), "bytes"),
    "mapping": ({"a": SECRET}, "dict"),
    "no id": (SECRET, "entry 1"),
    "empty id": (f"a:{SECRET},:{SECRET}", "entry 2"),
    "odd id": (f"a b:{SECRET}", "entry 1"),
    "long id": (f"{'a' * 33}:{SECRET}", "entry 1"),
    "none with a key": (f"none:{SECRET}", "'none'"),
    "empty entry": (f"a:{SECRET},", "entry 2"),
    "short": (f"a:{SHORT}", f"'a' is not {KEY_BYTES} bytes"),
    "long": (f"a:{base64.b64encode(b'x' * 33).decode()}", "'a'"),
    "not base64": (f"a:{SECRET[:-2]}!=", "'a'"),
    "repeated id": (f"a:{SECRET},a:{SECRET}", "'a' stands for two"),
    "repeated none": (f"none,a:{SECRET},none", "'none' stands for two"),
}


@kinds
@pytest.mark.parametrize(("keys", "word"), list(BAD.values()), ids=list(BAD))
def test_bad_keys_are_refused_at_once_and_not_quoted(kind: type[Signing | Encryption], keys: Any, word: str) -> None:
    """A typing error in a secret must not put the secret into a log, not even with the variables of each frame."""
    with pytest.raises(ConfigurationError) as caught:
        kind(keys)
    assert word in str(caught.value)
    assert "openssl rand" in str(caught.value) or "two keys" in str(caught.value)
    error = caught.value
    ours = error.__traceback__ and error.__traceback__.tb_next  # the first frame is this test, which has the keys
    told = traceback.TracebackException(type(error), error, ours, capture_locals=True)
    assert not shows_a_secret("".join(told.format()), SECRET, SHORT)


@kinds
def test_no_key_is_shown(kind: type[Signing | Encryption], caplog: pytest.LogCaptureFixture) -> None:
    """Settings are printed and logged by people who look for something else."""
    settings = Settings(seal=kind(f"{RING},none"))
    queue = Queue(settings=settings)
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("test").info("%s %r %s", settings, settings.seal, vars(queue))
    shown = [caplog.text, repr(settings), repr(queue.wire), str(vars(queue.wire)), str(dataclasses.asdict(settings))]
    assert not shows_a_secret("".join([*shown, queue.wire.description]), *TEXT.values())
    assert f"{kind.__name__}(new, old, none)" in repr(settings)


def shows_a_secret(text: str, *secrets: str) -> bool:
    """Say whether a key is in a text, in any of the forms in which a program would write it."""
    plain = [base64.b64decode(secret) for secret in secrets]
    forms = [*secrets, *(key.hex() for key in plain), *(repr(key)[2:-1] for key in plain)]
    return any(form[:16] in text for form in forms)


@pytest.mark.parametrize("seal", [RING, TEXT["new"], b"x", Signing])
def test_settings_take_a_seal_and_nothing_else(seal: Any) -> None:
    """What was passed by mistake is likely a key, so it is not quoted either."""
    with pytest.raises(ConfigurationError, match="Signing") as caught:
        Settings(seal=seal)
    assert not shows_a_secret(str(caught.value), TEXT["new"])


# the environment


@pytest.mark.parametrize(("variable", "kind"), [(SIGNING, Signing), (ENCRYPTION, Encryption)])
def test_the_environment_names_a_ring(monkeypatch: pytest.MonkeyPatch, variable: str, kind: type[Any]) -> None:
    """A worker is given its secrets by whoever starts it."""
    assert seal_of_environment() is None
    monkeypatch.setenv(variable, RING)
    ring = seal_of_environment()
    assert ring is not None
    assert type(ring) is kind
    assert dict(ring.keys) == BYTES
    assert "new" in Queue().wire.description
    own = Settings(seal=Signing(f"own:{TEXT['old']}"))
    assert "own" in Queue(settings=own).wire.description, "what the code says comes first"


@pytest.mark.parametrize("keys", ["", f"a:{SHORT}"])
def test_a_bad_ring_in_the_environment_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, keys: str) -> None:
    """A secret that was not filled in must not mean that nothing is sealed."""
    monkeypatch.setenv(SIGNING, keys)
    with pytest.raises(ConfigurationError, match=SIGNING) as caught:
        Queue()
    assert not shows_a_secret(str(caught.value), SHORT)


def test_two_rings_in_the_environment_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody could say which of them holds."""
    monkeypatch.setenv(SIGNING, RING)
    monkeypatch.setenv(ENCRYPTION, RING)
    with pytest.raises(ConfigurationError, match=f"set {ENCRYPTION} alone"):
        Queue()


def test_encryption_without_its_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Said when the queue is made, not when the first job comes."""
    monkeypatch.setitem(sys.modules, "cryptography.exceptions", None)
    with pytest.raises(ConfigurationError, match=r"aqueue-redis\[encryption\]"):
        Queue(settings=Settings(seal=Encryption(RING)))
    Queue(settings=Settings(seal=Signing(RING)))


# pickle


@pytest.mark.parametrize("ring", [None, f"none,{RING}"])
def test_pickle_is_refused_without_a_key_that_seals(ring: str | None) -> None:
    """Whoever can write to the server could otherwise run anything in a worker."""
    settings = Settings(serializer="pickle", seal=None if ring is None else Signing(ring))
    with pytest.raises(ConfigurationError, match=r"Settings\(seal=Signing"):
        Queue(settings=settings)
    Queue(settings=Settings(serializer="pickle", seal=Signing(RING)))


def test_pickle_may_be_sealed_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The key is where keys are kept, the choice is where the code is."""
    monkeypatch.setenv(ENCRYPTION, RING)
    assert "pickled" in Queue(settings=Settings(serializer="pickle")).wire.description


def test_another_serializer_is_refused() -> None:
    """There are two."""
    with pytest.raises(ConfigurationError, match="'yaml'"):
        Settings(serializer="yaml")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
