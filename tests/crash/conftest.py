"""One whole of each kind for all of its cases, replaced after one that failed; and the matrix at the end of the run."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.crash.disk import Disk
from tests.crash.matrix import Case, Kind, seed, tables
from tests.crash.parts import Backend, Database, Libvirt, Noop, Server, Sqlite
from tests.crash.whole import Whole
from tests.racing import Race

_survived = pytest.StashKey[dict[Case, bool]]()


class Wholes:
    """Makes a whole when there is none of that kind; one that did not survive is not used again.

    The servers that a kind needs start with it.
    """

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._server = request.getfixturevalue
        self._kind: Kind | None = None
        self._whole: Whole | None = None
        self._made = ExitStack()

    def hit(self, case: Case) -> None:
        if case.kind is not self._kind:
            self.end()
        if self._whole is None:
            self._kind = case.kind
            self._whole = self._make(case.kind)
        try:
            self._whole.hit(case)
        except BaseException:
            self._discard()
            raise

    def end(self) -> None:
        if self._whole is not None:
            try:
                self._whole.end()
            finally:
                self._discard()

    def _make(self, kind: Kind) -> Whole:
        with ExitStack() as stack:
            folder = Path(tempfile.mkdtemp(prefix="solstice-crash-"))
            stack.callback(shutil.rmtree, folder)
            folder.chmod(0o711)  # QEMU runs as a user of its own
            race = Race(folder / "points")
            stack.callback(race.close)
            disk = Disk(folder / "points")
            database: Database = Sqlite(disk)
            if kind is Kind.POSTGRESQL:
                server = self._server("postgresql")
                database = Server(server, stack.enter_context(server.database()))
            backend: Backend
            if kind is Kind.LIBVIRT:
                backend = Libvirt(self._server("libvirtd"), self._server("tiny_image"))
            else:
                backend = Noop(folder / "state")
            whole = Whole(self._server("broker").new_vhost(), folder, race, disk, backend, database)
            stack.callback(whole.close)
            self._made = stack.pop_all()
        return whole

    def _discard(self) -> None:
        self._whole = None
        self._made.close()


@pytest.fixture(scope="session")
def survived(pytestconfig: pytest.Config) -> dict[Case, bool]:
    """What became of each case so far."""
    return pytestconfig.stash.setdefault(_survived, {})


@pytest.fixture(scope="module")
def wholes(request: pytest.FixtureRequest) -> Iterator[Wholes]:
    made = Wholes(request)
    yield made
    made.end()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    results = config.stash.get(_survived, {})
    if results:
        terminalreporter.section(f"crash matrix, sampled by {seed()}")
        for line in tables(results):
            terminalreporter.write_line(line)


def pytest_unconfigure(config: pytest.Config) -> None:
    # after pytest's own last line
    results = config.stash.get(_survived, {})
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if results and isinstance(reporter, pytest.TerminalReporter):
        reporter.write_line(f"survived: {sum(results.values())} of {len(results)}")
