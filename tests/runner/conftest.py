"""Each shell that Debian packages and guests have, as the `sh` of a PATH of its own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from solstice.host.processes import SYSTEM_PATH
from tests.runner.peer import Peer

SHELLS = ["dash", "bash", "busybox", "ksh93", "mksh"]


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> str:
    """The path of the shell under test."""
    name: str = request.param
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


@pytest.fixture
def path(shell: str, tmp_path: Path) -> str:
    """A PATH whose `sh` is that shell: for the runner, for its checkout, and for the steps."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "sh").symlink_to(shell)
    return f"{folder}:{SYSTEM_PATH}"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def peer(state: Path, path: str) -> Iterator[Peer]:
    """A runner that has been welcomed."""
    with Peer(state, path) as started:
        started.welcome()
        yield started
