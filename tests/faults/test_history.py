"""A checker that cannot complain proves nothing: each kind of wrong is made up here, and found."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import redis
from servers import Server

from aqueue import Queue
from faults.history import History, Remains, complaints, remains


def good() -> tuple[History, Remains]:
    """Five jobs that are where they belong: done, waiting, delayed, running and failed after a second run."""
    history = History(asked=5, acknowledged=set("abcde"), told={"a"})
    history.events = [("a", "start"), ("a", "end"), ("d", "start"), ("e", "start"), ("e", "start")]
    history.cause("e")
    store = Remains(
        states={"a": "completed", "b": "queued", "c": "scheduled", "d": "running", "e": "failed"},
        counters={"completed": 1, "failed": 1, "retried": 1},
    )
    for job_id, place in zip("bcde", ("queued", "scheduled", "held", "failed"), strict=True):
        store.places[job_id] = [place]
    return history, store


def test_nothing_is_wrong_where_nothing_is_wrong() -> None:
    """Otherwise every sweep would cry wolf."""
    assert complaints(*good()) == []


Spoil = Callable[[History, Remains], object]


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda _, store: store.states.pop("b"), "b was acknowledged and is nowhere"),
        (lambda _, store: store.places.pop("b"), "b is queued and lies in no list"),
        (lambda _, store: store.places["c"].append("queued"), r"c is scheduled and lies in \['scheduled', 'queued'\]"),
        (lambda _, store: store.places["b"].append("inbox"), r"b is queued and lies in \['queued', 'inbox'\]"),
        (lambda _, store: store.places["a"].append("held"), r"a is completed and still lies in \['held'\]"),
        (lambda history, _: history.start("a"), "a ran 2 times with 0 causes"),
        (lambda history, _: history.events.insert(1, ("a", "start")), "a was started while it was running"),
        (lambda history, _: history.causes.clear(), "e ran 2 times with 0 causes"),
        (lambda history, _: history.events.remove(("a", "end")), "a is completed and no run of it has returned"),
        (lambda history, _: history.told.add("b"), "b gave a result and no run of it has returned"),
        (lambda _, store: store.counters.update(completed=2), "1 jobs are completed and 2 were counted"),
        (lambda _, store: store.counters.update(completed=0), "1 jobs are completed and 0 were counted"),
        (lambda _, store: store.counters.update(damaged=1), "1 records were found damaged"),
        (lambda _, store: store.states.update(x="queued"), "x is queued and lies in no list"),
        (lambda _, store: store.states.update(x="cancelled"), "6 jobs exist and 5 were asked for"),
        (lambda history, _: history.start("x"), "x has run and has no record"),
        (lambda _, store: store.leaked.append("held:w"), "held:w would stay for ever"),
    ],
)
def test_what_is_wrong_is_said(spoil: Spoil, complaint: str) -> None:
    """One sentence at least, about the right job."""
    history, store = good()
    spoil(history, store)
    found = complaints(history, store)
    assert any(re.search(complaint, one) for one in found), found


async def test_what_lies_in_a_store_is_read(server: Server, raw: redis.Redis) -> None:
    """The checker sees jobs where the store puts them, and sees one that was taken out of its list."""
    async with Queue("q", url=server.url) as queue:
        now = await queue.enqueue("work")
        later = await queue.remote("work").options(delay=600).enqueue()
        history = History(asked=2, acknowledged={now.id, later.id})
        found = remains(raw, "q")
        assert found.states == {now.id: "queued", later.id: "scheduled"}
        assert found.places == {now.id: ["queued"], later.id: ["scheduled"]}
        assert complaints(history, found) == []
        raw.lrem("aqueue:{q}:queued", 0, now.id)
        assert complaints(history, remains(raw, "q")) == [f"{now.id} is queued and lies in no list"]
        await queue.purge()
        await queue.delete(now.id)
