"""Seals: what lies in Redis, what fits, and that nothing else does."""

from __future__ import annotations

import base64
import inspect
import pickle
from contextlib import suppress
from itertools import pairwise
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aqueue import BadArguments, Encryption, NotSerializable, PayloadRefused, Settings, Signing
from aqueue.job import JobError, JobId, QueueName
from aqueue.store import codec
from aqueue.store.sealing import Purpose, Safe
from aqueue.store.wire import Wire, line_of, wire_of

KEYS: Final = {name: f"{name}:{base64.b64encode(name.encode() * 16).decode()}" for name in ("k1", "k2")}
Q, OTHER, ID, NEIGHBOUR = QueueName("q"), QueueName("other"), JobId("job-1"), JobId("job-2")
CALL: Final = b'[1,"send",[7],{},{}]'

kinds = pytest.mark.parametrize("kind", [Signing, Encryption])


def ring(*names: str) -> str:
    return ",".join(KEYS.get(name, name) for name in names)


def wire(kind: type[Any], *names: str, queue: QueueName = Q, pickled: bool = False) -> Wire:
    return wire_of(queue, Settings(seal=kind(ring(*names)), serializer="pickle" if pickled else "json"))


def safe(kind: type[Any], *names: str, queue: QueueName = Q) -> Safe:
    return Safe(queue, kind(ring(*(names or ("k1",)))))


def sealed_call(kind: type[Any], *names: str, pickled: bool = False) -> bytes:
    sender = wire(kind, *(names or ("k1",)), pickled=pickled)
    return sender.seal_call(ID, "send", sender.encode_call("send", (7,), {}, codec.Headers()))


def test_a_signed_payload_of_today_is_read_for_ever() -> None:
    """Jobs wait for weeks, and the next version of aqueue has to take them."""
    signature = bytes.fromhex("9345c53f4e8f91a4c1d03c6a80e5e907e000b2c8af4ceed29b346fb966616285")
    golden = b"signed json k1 send\n" + signature + CALL
    assert sealed_call(Signing) == golden
    call = wire(Signing, "k1").open_call(ID, golden)
    assert (call.task, isinstance(call, codec.Envelope)) == ("send", True)


def test_an_encrypted_payload_of_today_is_read_for_ever() -> None:
    """As above; each sealing differs, so this one was made earlier."""
    made = "7ede8127367c5912ccb209a306c6f35fbf0197119e8acc9c0c4022db1cfa139c6e97bce7a9ed4692a27ef39e576d89d2"
    golden = b"encrypted json k1 send\n" + bytes.fromhex(made)
    assert wire(Encryption, "k1").open_call(ID, golden).task == "send"
    again = sealed_call(Encryption)
    assert again.startswith(b"encrypted json k1 send\n")
    assert again != golden
    assert len(again) == len(golden)
    assert b"[7]" not in again


@kinds
@pytest.mark.parametrize("field", ["queue", "job", "purpose", "task", "form", "key"])
def test_a_payload_fits_nowhere_else(kind: type[Any], field: str) -> None:
    """Otherwise a signed call of today is a signed call of anything, for ever."""
    data = safe(kind).close("call", ID, CALL, task="send")
    assert safe(kind).open("call", ID, data) == ("json", CALL)
    purpose: Purpose = "result" if field == "purpose" else "call"
    where = NEIGHBOUR if field == "job" else ID
    words = {"task": (b" send\n", b" drop\n"), "form": (b" json ", b" pickle "), "key": (b" k1 ", b" k2 ")}
    moved = data.replace(*words[field], 1) if field in words else data
    with pytest.raises(PayloadRefused, match="changed, or moved from another job, task or queue"):
        safe(kind, "k1", "k2", queue=OTHER if field == "queue" else Q).open(purpose, where, moved)


@kinds
@given(st.data())
@settings(max_examples=300, deadline=None)
def test_no_other_bytes_are_taken(kind: type[Any], data: st.DataObject) -> None:
    """One bit anywhere, a piece less or a piece more: the header too, which is read before the seal is checked."""
    good = safe(kind).close("call", ID, CALL, task="send")
    place = data.draw(st.integers(0, len(good) - 1))
    match data.draw(st.sampled_from(["flip", "cut", "insert", "word", "garbage"])):
        case "flip":
            bad = good[:place] + bytes([good[place] ^ (1 << data.draw(st.integers(0, 7)))]) + good[place + 1 :]
        case "cut":
            bad = good[:place]
        case "insert":
            bad = good[:place] + data.draw(st.binary(min_size=1, max_size=40)) + good[place:]
        case "word":
            bad = good.replace(b"\n", data.draw(st.sampled_from([b" \n", b" x\n", b"\r\n", b"\n\n", b""])), 1)
        case _:
            bad = data.draw(st.sampled_from([b"", b"signed ", b"encrypted ", b"signed json k1 send\n"]))
            bad += data.draw(st.binary(max_size=80))
    if bad != good:
        with pytest.raises(PayloadRefused):
            safe(kind).open("call", ID, bad)


@given(st.text(max_size=8), st.binary(max_size=8), st.integers(0, 8))
@settings(max_examples=300, deadline=None)
def test_nothing_slips_from_the_context_into_the_body(name: str, body: bytes, split: int) -> None:
    """A job may be called anything by whoever writes to the server; its name must not pass for part of a payload."""
    data = safe(Signing).close("call", JobId(name + "x"), body)
    head, tail = (name + "x")[:split], (name + "x")[split:].encode()
    line, sealed = data.split(b"\n", 1)
    shifted = line + b"\n" + sealed[:32] + tail + body
    if head != name + "x":
        with pytest.raises(PayloadRefused):
            safe(Signing).open("call", JobId(head), shifted)


@kinds
def test_a_line_without_end_is_cut_short(kind: type[Any]) -> None:
    """It is shown in the log before it is refused."""
    endless = f"{kind.word} json k1 ".encode() + b"x" * 1_000_000
    with suppress(BadArguments):  # of what lies open, the body is read too
        assert len(line_of(endless)[0]) < 2048
    with pytest.raises(PayloadRefused) as caught:
        safe(kind).open("call", ID, endless)
    with pytest.raises(PayloadRefused) as other:
        safe(kind).open("call", ID, endless.replace(b"k1", b"k" * 100_000))
    assert len(str(caught.value)) + len(str(other.value)) < 1000
    longest = safe(kind).close("call", ID, CALL, task="\U0001f600" * 200)
    assert safe(kind).open("call", ID, longest) == ("json", CALL)


# rings


@kinds
def test_a_key_is_rotated_in_three_steps_without_a_refusal(kind: type[Any]) -> None:
    """At each step, processes that are one step apart must take each other's payloads."""
    steps = [["none"], ["none", "k1"], ["k1", "none"], ["k1"], ["k1", "k2"], ["k2", "k1"], ["k2"]]
    for one, next_ in pairwise(steps):
        for sender, reader in ((one, next_), (next_, one), (one, one), (next_, next_)):
            writes = Wire(Q) if sender == ["none"] else wire(kind, *sender)
            reads = Wire(Q) if reader == ["none"] else wire(kind, *reader)
            payload = writes.seal_call(ID, "send", CALL)
            assert reads.open_call(ID, payload).task == "send", (sender, reader)
            result = writes.encode_result(ID, 7, 100)
            assert reads.decode_result(ID, result, codec.decode_plain) == 7
            error = JobError(type="T", message="m", traceback="t")
            assert reads.decode_error(ID, writes.encode_error(ID, error)) == error


@kinds
def test_a_key_that_was_taken_out_opens_nothing_any_more(kind: type[Any]) -> None:
    """A key that leaked is made worthless by leaving it out; the message says which one is asked for."""
    with pytest.raises(PayloadRefused, match=r"'k1' that is not here \(k2\)"):
        wire(kind, "k2").open_call(ID, sealed_call(kind))


@kinds
def test_what_is_not_sealed_is_refused_unless_the_ring_says_none(kind: type[Any]) -> None:
    """That is the point; the message names the way to go there slowly."""
    with pytest.raises(PayloadRefused, match=f"not {kind.word}.+`none` at the end of {kind.variable}"):
        wire(kind, "k1").open_call(ID, CALL)
    with pytest.raises(PayloadRefused, match=f"The result of job job-1 is not {kind.word}"):
        wire(kind, "k1").decode_result(ID, b"7", codec.decode_plain)
    assert wire(kind, "k1", "none").open_call(ID, CALL).task == "send"
    assert wire(kind, "k1", "none").decode_result(ID, b"7", codec.decode_plain) == 7


@kinds
def test_a_bad_seal_is_refused_although_none_would_be_taken(kind: type[Any]) -> None:
    """A ring on its way takes what has no seal, and nothing that has a wrong one."""
    with pytest.raises(PayloadRefused, match="changed"):
        wire(kind, "k1", "none").open_call(NEIGHBOUR, sealed_call(kind))
    with pytest.raises(PayloadRefused, match="not here"):
        wire(kind, "k1", "none").open_call(ID, sealed_call(kind).replace(b" k1 ", b" none ", 1))


@kinds
def test_who_has_no_keys_is_told_which(kind: type[Any]) -> None:
    """A worker that was started without its secrets is the likeliest mistake."""
    with pytest.raises(PayloadRefused, match=f"are {kind.word}, and this process has no keys; set {kind.variable}"):
        Wire(Q).open_call(ID, sealed_call(kind))
    result = wire(kind, "k1").encode_result(ID, None, 100)
    with pytest.raises(PayloadRefused, match=f"is {kind.word}, and this process has no keys; set {kind.variable}"):
        Wire(Q).decode_result(ID, result, codec.decode_plain)


def test_signed_and_encrypted_are_not_taken_for_each_other() -> None:
    """The same key must not make one into the other."""
    for sender, reader in ((Signing, Encryption), (Encryption, Signing)):
        with pytest.raises(PayloadRefused, match="use one of both"):
            wire(reader, "k1").open_call(ID, sealed_call(sender))


def test_errors_are_encrypted_and_never_signed() -> None:
    """They may quote arguments. Scripts write some of them, so a signature could not be asked for."""
    error = JobError(type="ValueError", message="secret", traceback="secret")
    encrypted = wire(Encryption, "k1").encode_error(ID, error)
    assert b"secret" not in encrypted
    assert wire(Encryption, "k1").decode_error(ID, encrypted) == error
    for other in (wire(Encryption, "k2"), wire(Signing, "k1"), Wire(Q)):
        assert other.decode_error(ID, encrypted).type == "PayloadRefused"
    assert wire(Encryption, "k1").decode_error(NEIGHBOUR, encrypted).type == "PayloadRefused"
    assert wire(Encryption, "k1").decode_error(ID, codec.encode_error(error)) == error
    assert wire(Signing, "k1").encode_error(ID, error) == codec.encode_error(error)


# pickle


@kinds
@pytest.mark.parametrize("pickled", [True, False])
def test_a_pickle_is_told_from_json(kind: type[Any], pickled: bool) -> None:  # noqa: FBT001  # a parameter of the test
    """A reader of JSON says what is wrong; a reader of pickles takes JSON too, from those who know no better."""
    reader, data = wire(kind, "k1", pickled=not pickled), sealed_call(kind, pickled=pickled)
    result = wire(kind, "k1", pickled=pickled).encode_result(ID, 7, 100)
    if not pickled:
        assert reader.open_call(ID, data).task == "send"
        assert reader.decode_result(ID, result, codec.decode_plain) == 7
        return
    with pytest.raises(PayloadRefused, match=r"are of the form 'pickle'.+serializer='pickle'"):
        reader.open_call(ID, data)
    with pytest.raises(PayloadRefused, match="is of the form 'pickle'"):
        reader.decode_result(ID, result, codec.decode_plain)


class Bomb:
    """Unpickling one is a call of somebody else's choice."""

    def __reduce__(self) -> tuple[Any, ...]:
        return pytest.fail, ("a pickle was loaded before its seal was checked",)


@kinds
@pytest.mark.parametrize("names", [["k1"], ["k1", "none"]])
def test_no_pickle_is_loaded_whose_seal_does_not_fit(kind: type[Any], names: list[str]) -> None:
    """Loading is running."""
    reader = wire(kind, *names, pickled=True)
    inner = b'[1,"send","' + base64.b64encode(pickle.dumps(((Bomb(),), {}))) + b'",{},{}]'
    for line in (b"", b"signed pickle k1 send\n", b"encrypted pickle k1 send\n", b"signed pickle none send\n"):
        for seal in (b"", bytes(12), bytes(32)):
            with pytest.raises((PayloadRefused, BadArguments)):
                reader.open_call(ID, line + seal + inner).arguments(
                    codec.ArgumentsDecoder("send", inspect.signature(print), {})
                )
            with pytest.raises((PayloadRefused, ValueError)):
                reader.decode_result(ID, line + seal + pickle.dumps(Bomb()), codec.decode_plain)
        reader.look(ID, line + bytes(32) + inner)
        reader.decode_error(ID, line + bytes(32) + inner)


def test_what_cannot_be_pickled_is_named() -> None:
    """As with JSON."""
    sender = wire(Signing, "k1", pickled=True)
    with pytest.raises(NotSerializable, match="argument 2 of send cannot be pickled"):
        sender.encode_call("send", (1, lambda: 0), {}, codec.Headers())
    with pytest.raises(NotSerializable, match="b of send cannot be pickled"):
        sender.encode_call("send", (), {"a": 1, "b": lambda: 0}, codec.Headers())
    with pytest.raises(NotSerializable, match="the result cannot be pickled"):
        sender.encode_result(ID, lambda: 0, 100)
    with pytest.raises(NotSerializable, match="more than the 10 allowed"):
        sender.encode_result(ID, "x" * 20, 10)
    assert sender.largest_argument(("x", "y" * 100), {"z": 1}).startswith("argument 2 alone takes 1")
