"""One whole for all cases, replaced after one that failed; and the matrix at the end of the run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.crash.matrix import Case, seed, table
from tests.crash.whole import Wholes
from tests.real.broker import Broker

_survived = pytest.StashKey[dict[Case, bool]]()


@pytest.fixture(scope="session")
def survived(pytestconfig: pytest.Config) -> dict[Case, bool]:
    """What became of each case so far."""
    return pytestconfig.stash.setdefault(_survived, {})


@pytest.fixture(scope="module")
def wholes(broker: Broker) -> Iterator[Wholes]:
    made = Wholes(broker)
    yield made
    made.end()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    results = config.stash.get(_survived, {})
    if results:
        terminalreporter.section(f"crash matrix, sampled by {seed()}")
        for line in table(results):
            terminalreporter.write_line(line)
        terminalreporter.write_line(f"survived: {sum(results.values())} of {len(results)}")
