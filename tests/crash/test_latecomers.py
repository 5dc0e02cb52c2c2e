"""Two faults at once: a worker stands still while its supervisor dies, and goes on when the next one has decided.

Whatever that has decided, of two attempts of one job never more than one runs, and the job ends once.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil
import pytest

from solstice.host import racepoints
from tests.crash.leftovers import look_for_leftovers
from tests.crash.overlap import Overlaps
from tests.crash.results import Results
from tests.e2e.service import Service
from tests.racing import Race
from tests.real.waiting import until

pytestmark = pytest.mark.broker

HASTE = 20.0
SECONDS = 60.0
# At these nobody can know of the worker yet: the next supervisor gives its attempt up.
UNKNOWN = ("forkserver.fork.before", "worker.listen.before")
# At these somebody is met there, or has begun the journal.
MET = ("worker.listen.after", "worker.identity.unwritten", "worker.prepare.before", "worker.running.said")
AGAIN = r"attempt is running .*attempt=2"
ATTACHED = r"attached to a worker"


class Double:
    """A service on noop, a job whose first worker stands at a point, and the supervisor that came after."""

    def __init__(self, url: str, folder: Path) -> None:
        with ExitStack() as stack:
            self._race = Race(folder / "points")
            stack.callback(self._race.close)
            self._overlaps = Overlaps(folder / "state" / "noop")
            stack.callback(self._overlaps.close)
            environment = {racepoints.VARIABLE: str(self._race.folder), racepoints.HASTE: str(HASTE)}
            self.service = Service(folder, url, None, MAX_ATTEMPTS="2", **environment)
            stack.callback(self.service.close)
            self.service.start()
            self._results = Results(url)
            self.close = stack.pop_all().close

    def stop_at(self, point: str) -> None:
        self._race.arm(point)
        self._job = self.service.submit("true", env={"NOOP_SECONDS": "2"})
        _point, self._pid = self._race.reached()
        self.service.end(signal.SIGKILL)
        self.service.start()

    def go_on(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGCONT)

    def look(self, attempts: int) -> None:
        self._results.wait([self._job], SECONDS)
        until(self._is_idle, seconds=SECONDS, what="an idle host", evidence=lambda: self.service.text)
        until(self._is_gone, seconds=SECONDS, what="the end of the process that stood", evidence=str)
        self._results.wait([], SECONDS)
        ended = self._results.of[self._job]
        stored = self.service.ask("job", job=self._job)
        assert (ended.states, list(ended.ids.values()), len(stored["attempts"])) == ({"succeeded"}, [1], attempts)
        assert stored["job"]["state"] == "succeeded"
        self._overlaps.look()
        look_for_leftovers(self.service, [self._job])

    def _is_idle(self) -> bool:
        status = self.service.ask("status")
        return not status["active"] and not status["pending"]

    def _is_gone(self) -> bool:
        """The fork server or the worker of the supervisor that was killed."""
        return not psutil.pid_exists(self._pid) or psutil.Process(self._pid).status() == psutil.STATUS_ZOMBIE


@pytest.fixture
def double(reachable: Path, vhost: str) -> Iterator[Double]:
    made = Double(vhost, reachable)
    yield made
    made.go_on()
    made.close()


@pytest.mark.parametrize("point", UNKNOWN)
def test_a_worker_that_comes_when_its_attempt_was_given_up_does_not_run(double: Double, point: str) -> None:
    double.stop_at(point)
    double.service.said(AGAIN)
    double.go_on()
    double.look(attempts=2)


@pytest.mark.parametrize("point", MET)
def test_a_worker_that_goes_on_when_it_was_adopted_ends_its_job(double: Double, point: str) -> None:
    double.stop_at(point)
    double.service.said(ATTACHED)
    double.go_on()
    double.look(attempts=1)


@pytest.mark.parametrize("point", MET)
def test_a_worker_that_stands_still_after_it_was_adopted_is_killed_before_the_next_attempt(
    double: Double, point: str
) -> None:
    double.stop_at(point)
    double.service.said(AGAIN)
    double.go_on()
    double.look(attempts=2)
