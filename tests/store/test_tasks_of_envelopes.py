"""Which task an envelope is of, as a claim reads it while tasks are paused: the same as a worker would."""

from __future__ import annotations

import base64
import json
from importlib import resources
from typing import Any, Final

import pytest
import redis
from faults import hostile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aqueue.errors import AqueueError
from aqueue.job import JobId, QueueName
from aqueue.keyring import Encryption, Signing
from aqueue.settings import Settings
from aqueue.store import codec
from aqueue.store.keys import MAX_NAME_LENGTH, is_name
from aqueue.store.wire import Wire, line_of, wire_of

SHELVING: Final = (resources.files("aqueue.store") / "lua" / "include" / "shelving.lua").read_text("utf-8")
NAMES: Final = st.one_of(
    st.text(max_size=MAX_NAME_LENGTH).filter(is_name),
    st.text('a"\\,[]é😀/~\u2028', min_size=1, max_size=MAX_NAME_LENGTH),
).filter(is_name)
KEYS: Final = f"k1:{base64.b64encode(bytes(32)).decode()}"
WIRES: Final[dict[str, Wire]] = {
    "plain": Wire(QueueName("q")),
    "signed": wire_of(QueueName("q"), Settings(seal=Signing(KEYS))),
    "encrypted": wire_of(QueueName("q"), Settings(seal=Encryption(KEYS))),
    "pickled": wire_of(QueueName("q"), Settings(seal=Signing(KEYS), serializer="pickle")),
}
MANY: Final = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


READ: Final = """
local task = task_of(ARGV[1])
return type(task) == 'string' and string.gsub(task, '.', function(c) return string.format('%02x', string.byte(c)) end)
"""


def read(raw: redis.Redis, envelope: bytes) -> str | None:
    """Ask the script, which sees the head of an envelope only."""
    plain: Any = raw  # redis-py leaves parts of its client untyped
    found = plain.eval(f"{SHELVING}\n{READ}", 0, envelope[:4096])
    return None if found is None else bytes.fromhex(found).decode("utf-8", "replace")


@pytest.mark.parametrize("kind", WIRES)
@MANY
@given(name=NAMES)
def test_a_claim_knows_every_name_however_the_job_is_sealed(raw: redis.Redis, kind: str, name: str) -> None:
    """A job whose name it did not know would start although its task is paused."""
    envelope = codec.encode_call(name, (7,), {}, codec.NO_HEADERS)
    assert read(raw, WIRES[kind].seal_call(JobId("j"), name, envelope, None)) == name


@MANY
@given(
    name=NAMES,
    indent=st.sampled_from([None, 2]),
    ascii_only=st.sampled_from(["", "ascii"]),
    before=st.sampled_from(["", " \n"]),
)
def test_a_claim_reads_json_however_it_is_written(
    raw: redis.Redis, name: str, indent: int | None, ascii_only: str, before: str
) -> None:
    """Other programs may enqueue, too; their writers put spaces, and escape what they like."""
    written = json.dumps([1, name, ["x", name], {}, {}], indent=indent, ensure_ascii=bool(ascii_only))
    assert read(raw, (before + written).encode()) == name


@MANY
@given(envelope=hostile.envelopes)
def test_a_claim_reads_what_a_worker_reads(raw: redis.Redis, envelope: bytes) -> None:
    """What a worker cannot read is its to fail, and never an error of the claim."""
    found = read(raw, envelope)
    try:
        task = line_of(envelope)[0]
    except AqueueError:
        return
    assert found == task
