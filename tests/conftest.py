"""Fixtures: a real server for every test, emptied before and searched for leaks after."""

from __future__ import annotations

import logging
import os
import zlib
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import redis
from leaks import leaks
from servers import Server, binaries

from aqueue import Queue, Settings

BINARIES = binaries()
LOOPS = {"valkey9": "asyncio", "redis8": "uvloop", "redis7": "asyncio"}
ENGINES = {name: loop for name, loop in LOOPS.items() if name in BINARIES}
"""Each server with one event loop: all servers and both loops are covered without the whole product."""
BEHAVIOUR = Path(__file__).parent / "behaviour"

# How long an example takes says nothing here: a machine that stands still for a moment is no failure.
hypothesis.settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any machine")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Try behaviour on one server per test, or on all where AQUEUE_TEST_SERVERS=all.

    What servers may do differently is in the scripts, whose tests run on every server; there it is mostly Python that
    is tried. Which server it is depends on the test's name alone: each gets its share, and a failure comes again.
    """
    if os.environ.get("AQUEUE_TEST_SERVERS") == "all":
        return
    others = [item for item in items if item.path.is_relative_to(BEHAVIOUR) and not _is_chosen(item)]
    if others:
        config.hook.pytest_deselected(items=others)
        left_out = set(others)
        items[:] = [item for item in items if item not in left_out]


def _is_chosen(item: pytest.Item) -> bool:
    call = getattr(item, "callspec", None)
    if not isinstance(item, pytest.Function) or call is None or "engine" not in call.params:
        return True
    names, name = sorted(ENGINES), f"{item.path.name}::{item.originalname}"
    return bool(call.params["engine"] == names[zlib.crc32(name.encode()) % len(names)])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep what was captured printable: tests log what UTF-8 cannot hold, which could not be sent between processes."""
    report = yield
    report.sections = [(name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections]
    return report


@pytest.fixture(scope="session")
def running_servers() -> Iterator[dict[str, Server]]:
    started: dict[str, Server] = {}
    yield started
    for server in started.values():
        server.__exit__(None, None, None)


@pytest.fixture(params=list(ENGINES))
def engine(request: pytest.FixtureRequest) -> str:
    """The name of a server; a test that asks for it, even indirectly, runs once per server."""
    return str(request.param)


@pytest.fixture
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    name = request.getfixturevalue("engine") if "engine" in request.fixturenames else next(iter(ENGINES))
    return "asyncio", {"use_uvloop": ENGINES[name] == "uvloop"}


@pytest.fixture
def server(engine: str, running_servers: dict[str, Server]) -> Iterator[Server]:
    """A shared server, empty. After the test nothing may be left that would stay for ever."""
    if engine not in running_servers:
        running_servers[engine] = Server(BINARIES[engine])
        running_servers[engine].start()
    shared = running_servers[engine]
    with shared.client() as client:
        client.flushall()
        client.config_set("maxmemory", 0)
        yield shared
        left = leaks(client)
    assert not left, f"these keys would stay for ever: {left}"


@pytest.fixture
def own_server(engine: str) -> Iterator[Server]:
    """A server of this test alone, which may be killed; keeps its data over a restart."""
    with Server(BINARIES[engine], aof=True) as server:
        yield server


@pytest.fixture
def raw(server: Server) -> Iterator[redis.Redis]:
    """A plain client to look behind the scenes."""
    with server.client() as client:
        yield client


@pytest.fixture
async def queue(server: Server) -> AsyncIterator[Queue]:
    """A queue with a short lease, so that tests of crashes do not last."""
    async with Queue("q", url=server.url, settings=Settings(lease=1.5)) as queue:
        yield queue


@pytest.fixture(autouse=True)
def no_handlers_left() -> Iterator[None]:
    """Tests of the command line configure logging; none may change what the next one sees."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    yield
    root.handlers[:], root.level = before, level
