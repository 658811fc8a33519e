"""Faults are about processes and connections, not about the server's make: one of them will do here."""

from __future__ import annotations

import pytest
from servers import binaries


@pytest.fixture
def engine() -> str:
    return next(iter(binaries()))
