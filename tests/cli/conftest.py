"""Supervisors with hand-written answers, which end with their test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.supervisors import Answer, Supervisor


@pytest.fixture
def answering(tmp_path: Path) -> Iterator[Callable[..., Supervisor]]:
    """`answering(status=lambda asked: …)`: at most one a test."""
    made: list[Supervisor] = []

    def make(**answers: Answer) -> Supervisor:
        made.append(Supervisor(tmp_path, answers))
        return made[-1]

    yield make
    for supervisor in made:
        supervisor.close()
