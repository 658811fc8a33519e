"""A tool that finds faults must do exactly what it says, or its silence means nothing."""

from __future__ import annotations

import asyncio

import pytest
import redis
from redis.exceptions import ResponseError

from aqueue import Queue
from aqueue.store.address import route_of_url
from aqueue.store.link import Link
from faults.proxy import LATE_BY, Door, Fault, Proxy, Refusal, nth


@pytest.fixture
async def door(proxy: Proxy) -> Door:
    return await proxy.door("main")


async def connected(door: Door) -> Link:
    return Link(await route_of_url(door.url).connect(""))


def count(raw: redis.Redis) -> int:
    """How often INCR has been executed."""
    value = raw.get("n")
    raw.delete("n")
    return int(str(value or 0))


async def test_what_it_passes_on_is_unchanged(proxy: Proxy, door: Door) -> None:
    """Whole jobs go through: scripts, blocking calls and messages."""
    async with Queue("q", url=door.url) as queue:
        job = await queue.enqueue("x", "é" * 10_000)
        assert (await job.info()).args == ["é" * 10_000]
        names = [request.name for request in proxy.requests]
        assert names[0] == "HELLO"
        assert {"INFO", "SADD", "enqueue", "inspect"} <= set(names)
        assert [request.number for request in proxy.requests] == list(range(1, len(names) + 1))
        await queue.delete(job.id)


@pytest.mark.parametrize(
    ("fault", "executed"),
    [
        (Fault.LOST_REQUEST, 0),
        (Fault.CUT_BEFORE, 0),
        (Fault.HALF_OPEN, 0),
        (Fault.LOST_REPLY, 1),
        (Fault.CUT_AFTER, 1),
        (Fault.GHOST, 1),
    ],
)
async def test_a_fault_hits_one_call_and_the_caller_gets_no_answer(
    fault: Fault, executed: int, proxy: Proxy, door: Door, raw: redis.Redis
) -> None:
    """The earlier call is answered, the second one is executed or not as the fault's name says."""
    proxy.decide = nth("INCR", 2, fault)
    link = await connected(door)
    assert await link.call("INCR", "n") == 1
    with pytest.raises((redis.ConnectionError, redis.TimeoutError)):
        await link.call("INCR", "n", timeout=0.3)
    await link.close()
    while executed and raw.get("n") == "1":
        await asyncio.sleep(0)
    assert count(raw) == 1 + executed
    assert [(request.name, lie) for request, lie in proxy.lies] == [("INCR", fault)]


async def test_a_duplicate_is_executed_twice_and_answered_once(proxy: Proxy, door: Door, raw: redis.Redis) -> None:
    """The second answer arrives, and what follows is in step."""
    proxy.decide = nth("INCR", 1, Fault.DUPLICATE)
    link = await connected(door)
    assert await link.call("INCR", "n") == 2
    assert await link.call("ECHO", "next") == b"next"
    await link.close()
    assert count(raw) == 2


async def test_a_late_request_is_executed_after_others(proxy: Proxy, door: Door, raw: redis.Redis) -> None:
    """Like one that lay in the socket of a server that was frozen."""
    proxy.decide = nth("INCR", 1, Fault.LATE)
    link = await connected(door)
    with pytest.raises(redis.ConnectionError):
        await link.call("INCR", "n")
    assert raw.get("n") is None
    again = await connected(door)
    for _ in range(LATE_BY):
        await again.call("PING")
    while raw.get("n") is None:
        await asyncio.sleep(0)
    await link.close()
    await again.close()
    assert count(raw) == 1


async def test_a_half_open_connection_follows_the_cut(proxy: Proxy, door: Door, raw: redis.Redis) -> None:
    """It is accepted and never answered; the one after it is as ever."""
    proxy.decide = nth("INCR", 1, Fault.HALF_OPEN)
    link = await connected(door)
    with pytest.raises(redis.ConnectionError):
        await link.call("INCR", "n")
    await link.close()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await connected(door)
    link = await connected(door)
    assert await link.call("PING") == b"PONG"
    await link.close()


async def test_a_refusal_is_said_in_its_turn(proxy: Proxy, door: Door, raw: redis.Redis) -> None:
    """Pipelined calls before and after it get their own answers."""
    proxy.decide = nth("INCR", 1, Refusal("BUSY not now"))
    link = await connected(door)
    calls = [("ECHO", "1"), ("INCR", "n"), ("ECHO", "2")]
    answers = await asyncio.gather(*(link.call(*call) for call in calls), return_exceptions=True)
    await link.close()
    assert answers[::2] == [b"1", b"2"]
    assert isinstance(answers[1], ResponseError)
    assert str(answers[1]) == "BUSY not now"
    assert count(raw) == 0


async def test_a_frozen_door_lets_everything_through_after_the_thaw(proxy: Proxy, door: Door) -> None:
    """And the other door is passable meanwhile: a partition has two sides."""
    other = await connected(await proxy.door("other"))
    link = await connected(door)
    door.freeze()
    call = asyncio.ensure_future(link.call("ECHO", "x"))
    assert await other.call("PING") == b"PONG"
    assert not call.done()
    door.thaw()
    assert await call == b"x"
    await link.close()
    await other.close()


async def test_a_throttled_reply_arrives_in_pieces(proxy: Proxy, door: Door) -> None:
    """A slow line must not be taken for a dead one, nor pieces of a reply for several."""
    door.bytes_per_second = 50_000
    link = await connected(door)
    assert await link.call("ECHO", "x" * 5_000) == b"x" * 5_000
    await link.close()


async def test_a_delayed_request_is_answered(proxy: Proxy, door: Door, raw: redis.Redis) -> None:
    """It only takes a while."""
    proxy.decide = nth("INCR", 1, Fault.DELAY)
    link = await connected(door)
    assert await link.call("INCR", "n") == 1
    await link.close()
    assert count(raw) == 1


async def test_a_long_line_delays_everything_and_holds_up_nothing(proxy: Proxy, door: Door) -> None:
    """A round trip takes twice the latency, and a hundred that are sent together take hardly more."""
    link = await connected(door)
    door.latency_seconds = 0.1
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert await asyncio.gather(*(link.call("ECHO", str(n)) for n in range(100))) == [b"%d" % n for n in range(100)]
    took = loop.time() - began
    assert 0.2 <= took < 100 * 0.2
    await link.close()


async def test_cutting_a_door_ends_its_connections(proxy: Proxy, door: Door) -> None:
    """And the next one is as ever."""
    link = await connected(door)
    door.cut()
    with pytest.raises(redis.ConnectionError):
        await link.call("PING")
    await link.close()
    link = await connected(door)
    assert await link.call("PING") == b"PONG"
    await link.close()
