"""A process that a test leaves is found by each of the signs that tie it to the run."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.real import leftovers


@pytest.fixture
def orphan() -> Iterator[ExitStack]:
    """Ends at the end of the test whatever its callbacks name."""
    with ExitStack() as stack:
        yield stack


def start_orphan(stack: ExitStack, argv: list[str], folder: Path, environment: dict[str, str]) -> int:
    """Start a program whose parent is gone by the time this returns, in a session of its own; return its pid."""
    launcher = 'setsid "$@" >/dev/null 2>&1 & echo $!'
    words = ["sh", "-c", launcher, "sh", *argv]
    done = subprocess.run(words, capture_output=True, check=True, timeout=10, cwd=folder, env=environment)
    pid = int(done.stdout)
    stack.callback(leftovers.Leftover(pid, argv[0]).kill)
    return pid


def found(root: Path) -> set[int]:
    return {process.pid for process in leftovers.find(root)}


def test_an_orphan_with_a_fresh_environment_is_found_by_the_folder_it_works_in(
    orphan: ExitStack, reachable: Path
) -> None:
    pid = start_orphan(orphan, ["sleep", "60"], reachable, {"PATH": os.environ["PATH"]})
    assert pid in found(reachable)


def test_an_orphan_elsewhere_is_found_by_the_marker_in_its_environment(orphan: ExitStack, reachable: Path) -> None:
    pid = start_orphan(orphan, ["sleep", "60"], Path("/"), dict(os.environ))
    assert pid in found(reachable)


def test_an_orphan_without_any_sign_is_not_ours(orphan: ExitStack, reachable: Path) -> None:
    pid = start_orphan(orphan, ["sleep", "60"], Path("/"), {"PATH": os.environ["PATH"]})
    assert pid not in found(reachable)
