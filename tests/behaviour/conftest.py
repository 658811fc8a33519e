"""Each of these tests runs on one of the servers, and on all of them where AQUEUE_TEST_SERVERS=all.

What servers may do differently is in the scripts, whose tests run on every server; here it is mostly Python that is
tried. Which server it is depends on the test's name alone, so that each gets its share and a failure comes again.
"""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import pytest
from servers import binaries

HERE = Path(__file__).parent
SERVERS = sorted(binaries())


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if os.environ.get("AQUEUE_TEST_SERVERS") == "all":
        return
    others = [item for item in items if item.path.is_relative_to(HERE) and not _is_chosen(item)]
    if others:
        config.hook.pytest_deselected(items=others)
        left_out = set(others)
        items[:] = [item for item in items if item not in left_out]


def _is_chosen(item: pytest.Item) -> bool:
    call = getattr(item, "callspec", None)
    if not isinstance(item, pytest.Function) or call is None or "engine" not in call.params:
        return True
    name = f"{item.path.name}::{item.originalname}"
    return bool(call.params["engine"] == SERVERS[zlib.crc32(name.encode()) % len(SERVERS)])
