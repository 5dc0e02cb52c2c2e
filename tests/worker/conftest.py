"""What the tests of a worker's orders share.  They carry them out in pytest's own process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from setproctitle import getproctitle, setproctitle

from solstice.model import Backend
from solstice.protocol import order
from tests.worker.forked import Forks


@pytest.fixture(autouse=True)
def _title() -> Iterator[None]:
    """A worker names its process after its order; pytest gets its own name back."""
    before = getproctitle()
    yield
    setproctitle(before)


@pytest.fixture
def noop(reachable: Path) -> order.Hypervisor:
    root = reachable / "noop"
    root.mkdir()
    return order.Hypervisor(Backend.NOOP, uri=str(root))


@pytest.fixture
def forks() -> Iterator[Forks]:
    server = Forks()
    yield server
    server.forget()
