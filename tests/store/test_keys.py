"""How keys are spelled, and which names may be part of them."""

from __future__ import annotations

import pytest
from redis.crc import key_slot

from aqueue.errors import ConfigurationError
from aqueue.job import JobId, QueueName, WorkerId
from aqueue.store.keys import MAX_NAME_LENGTH, TICKET, Keys, checked_name, unique_digest

KEYS = Keys("aqueue", QueueName("mail"))


def all_keys(keys: Keys) -> list[str]:
    job, worker = JobId("j"), WorkerId("w")
    return [
        keys.job(job), keys.payload(job), keys.unique("d"), keys.queued, keys.suspects, keys.scheduled, keys.workers,
        keys.worker(worker), keys.inbox(worker), keys.held(worker), keys.failed, keys.pruned, keys.paused, keys.stats,
        keys.channel("c"),
    ]  # fmt: skip


def test_keys_are_spelled_as_ever() -> None:
    """Two versions of this package work on the same data; a key that moves loses what it held."""
    assert all_keys(KEYS) == [
        f"aqueue:{{mail}}:{name}"
        for name in (
            "job:j", "payload:j", "unique:d", "queued", "suspects", "scheduled", "workers",
            "worker:w", "inbox:w", "held:w", "failed", "pruned", "paused", "stats", "channel:c",
        )
    ]  # fmt: skip
    assert KEYS.registry == "aqueue:queues"


def test_all_keys_of_a_queue_are_in_one_slot() -> None:
    """A script of Redis Cluster may touch no other."""
    assert len({key_slot(key.encode()) for key in all_keys(KEYS)}) == 1
    assert len({key_slot(Keys("a", QueueName(f"q{n}")).queued.encode()) for n in range(50)}) > 1


def test_no_two_keys_are_the_same() -> None:
    """Not even for a queue and a prefix that look like parts of keys."""
    keys = (
        all_keys(KEYS) + all_keys(Keys("aqueue", QueueName("mail:job"))) + all_keys(Keys("aqueue:mail", QueueName("x")))
    )
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("name", ["a", "mail", "a.b-c_d:e", "ünïcödé", "日本", "*", "x" * MAX_NAME_LENGTH])
def test_ordinary_names_are_fine(name: str) -> None:
    """People name queues after customers and teams."""
    assert checked_name(name, "queue name") == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "{a}",
        "a}",
        "{",
        "a b",
        "a\tb",
        "a\n",
        "\x7f",
        "\u200b",
        "\u2028",
        "\ue000",
        "\udcff",
        "x" * 201,
        None,
        1,
        b"a",
    ],
)
def test_names_that_break_keys_are_refused(name: object) -> None:
    """The message says which name of which kind, and what may be used instead."""
    with pytest.raises(ConfigurationError, match="queue name must"):
        checked_name(name, "queue name")  # type: ignore[arg-type]


def test_prefix_and_queue_are_both_checked() -> None:
    """A brace in the prefix would decide the slot."""
    with pytest.raises(ConfigurationError, match="prefix"):
        Keys("a{b}", QueueName("q"))
    with pytest.raises(ConfigurationError, match="queue name"):
        Keys("a", QueueName("q}"))


def test_a_unique_key_is_named_by_task_and_key() -> None:
    """Of one length, whatever the user's key is, and never the same for two tasks."""
    assert unique_digest("a", "b") == unique_digest("a", "b")
    assert unique_digest("a", "b") != unique_digest("ab", "") != unique_digest("", "ab")
    assert {len(unique_digest("task", "x" * n)) for n in (1, 10_000)} == {32}


def test_a_ticket_is_no_job() -> None:
    """It lies in the same list as ids, which are longer."""
    from aqueue.job_ids import new_job_id  # noqa: PLC0415  # only here

    assert len(TICKET) < len(new_job_id())
