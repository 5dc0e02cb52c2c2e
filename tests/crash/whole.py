"""A whole Solstice on noop, which is driven to a point, hit there, and looked at when all of its jobs have ended.

One whole serves any number of cases, one after the other: what a case left behind would be found by its own last look,
or at the latest when the whole is ended.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil

from solstice.host import racepoints
from tests.crash.disk import Disk
from tests.crash.leftovers import look_for_leftovers
from tests.crash.matrix import Case, Fault
from tests.crash.results import Results
from tests.e2e.service import Service
from tests.racing import Race
from tests.real.broker import Broker
from tests.real.recorder import Recorder
from tests.real.waiting import until

SHORT = 0.0
LONG = 2.0
SECONDS = 40.0
HASTE = 20.0
# Longer than any deadline that one process has for another, as HASTE makes them.
STOPPED = 7.0
# Nobody has a deadline for these: a store may take its time, and of a supervisor only its service manager asks.
UNWATCHED = ("supervisor.", "store.")
STOPPED_UNWATCHED = 2.0
DISK_FAILS = 1.0


# Without a worker's order, or after its crash, a killed supervisor costs an attempt; otherwise its workers go on.
UNDISTURBED = tuple(
    f"supervisor.{word}."
    for word in ("accept", "identity", "phase", "outcome", "done", "close", "publish", "reconcile")
)


class Whole:
    def __init__(self, url: str, folder: Path) -> None:
        with ExitStack() as stack:
            self._race = Race(folder / "points")
            stack.callback(self._race.close)
            self._recorder = stack.enter_context(Recorder(url))
            self._disk = Disk(folder / "points")
            environment = {**self._disk.environment, racepoints.HASTE: str(HASTE)}
            self._service = Service(
                folder,
                self._recorder.url,
                None,
                MAX_ATTEMPTS="3",
                MAX_CONCURRENCY="4",
                CAPACITY_MAP="tiny=4",
                **environment,
            )
            self._results = Results(url)
            self._jobs: list[str] = []
            stack.callback(self._service.close)
            self._service.start()
            self._closing = stack.pop_all()

    def hit(self, case: Case) -> None:
        """One case; raises `AssertionError` if the whole does not survive it."""
        jobs = self._drive(case.point)
        reached, pid = self._race.reached()
        assert reached == case.point
        self._apply(case, pid)
        self._look(jobs, case)

    def end(self) -> None:
        """End it in order, and see that nothing is left of all the jobs it ever had."""
        service = self._service
        family = [psutil.Process(service.process.pid), *psutil.Process(service.process.pid).children(recursive=True)]
        assert service.end() == 0
        psutil.wait_procs(family, timeout=5)
        assert not [process for process in family if process.is_running()]
        assert not [*service.state.rglob("*.sock"), *service.run.rglob("*.sock")]
        look_for_leftovers(service, self._jobs)

    def close(self) -> None:
        """End it at once, however it is."""
        if self._service.process.poll() is None:
            for process in psutil.Process(self._service.process.pid).children(recursive=True):
                process.kill()
            self._service.end(signal.SIGKILL)
        self._closing.close()

    # Driving

    def _drive(self, point: str) -> list[str]:
        """Arm the point and let jobs run into it; the jobs."""
        if point.startswith("supervisor.reconcile."):
            return self._drive_a_start(point)
        if point.startswith(("supervisor.crash.", "cleaner.")):
            return self._drive_a_crash(point)
        self._race.arm(point)
        # one that is still there when the supervisor is back; a worker that is hit needs none
        last = SHORT if point.startswith("worker.") else LONG
        return [self._submit(last), self._submit(SHORT), self._submit(SHORT)]

    def _drive_a_start(self, point: str) -> list[str]:
        running = self._running_job()
        self._service.end(signal.SIGKILL)
        self._race.arm(point)
        jobs = [running, self._submit(SHORT)]
        self._service.launch()
        return jobs

    def _drive_a_crash(self, point: str) -> list[str]:
        running = self._running_job()
        self._race.arm(point)
        self._service.worker(running).kill()
        return [running, self._submit(SHORT)]

    def _running_job(self) -> str:
        job = self._submit(LONG)
        self._service.said(rf"attempt is running .*job={job}", seconds=SECONDS)
        return job

    def _submit(self, seconds: float) -> str:
        job = self._service.submit("true", env={"NOOP_SECONDS": str(seconds)})
        self._jobs.append(job)
        return job

    # Hitting

    def _apply(self, case: Case, pid: int) -> None:
        match case.fault:
            case Fault.KILL:
                os.kill(pid, signal.SIGKILL)
            case Fault.STOP:
                self._leave_stopped(case.point, pid)
            case Fault.CUT:
                self._recorder.cut()
                os.kill(pid, signal.SIGCONT)
            case Fault.FULL | Fault.BROKEN:
                self._fail_the_disk(case.fault, pid)
        with suppress(psutil.TimeoutExpired):
            # one that cannot start, as its disk fails, is started again, as its service manager would
            psutil.Process(self._service.process.pid).wait(0 if pid != self._service.process.pid else 1)
        if self._service.process.poll() is not None:
            self._service.wait()
            self._service.start()

    def _leave_stopped(self, point: str, pid: int) -> None:
        if point.startswith(UNWATCHED):
            time.sleep(STOPPED_UNWATCHED)  # nothing happens, and nobody can be asked
            os.kill(pid, signal.SIGCONT)
        else:
            with suppress(psutil.NoSuchProcess):
                psutil.Process(pid).wait(STOPPED)  # it was found out and killed

    def _fail_the_disk(self, fault: Fault, pid: int) -> None:
        if fault is Fault.FULL:
            self._disk.fail(errno.ENOSPC, f"{self._service.state}/")
        else:
            self._disk.fail(errno.EIO, f"{self._service.state}/solstice.db")
        os.kill(pid, signal.SIGCONT)
        time.sleep(DISK_FAILS)  # what it does meanwhile is its own affair
        self._disk.heal()

    # Looking

    def _look(self, jobs: list[str], case: Case) -> None:
        try:
            self._results.wait(jobs, SECONDS)
            until(
                self._is_idle, seconds=SECONDS, what="an idle host", evidence=lambda: str(self._service.ask("status"))
            )
            self._results.wait([], SECONDS)
            for job in jobs:
                self._look_at(job, case)
            look_for_leftovers(self._service, jobs)
        except AssertionError as error:
            raise AssertionError(f"{case}: {error}\n{self._service.text[-8000:]}") from error

    def _look_at(self, job: str, case: Case) -> None:
        """It succeeded, as the fault cost it one attempt at most, and said so once."""
        ended = self._results.of[job]
        stored = self._service.ask("job", job=job)
        assert ended.states == {stored["job"]["state"]} == {"succeeded"}, (job, ended, stored)
        assert len(ended.ids) == 1, (job, ended)
        if not _may_repeat(case):
            assert set(ended.ids.values()) == {1}, (job, ended)
        if case.fault is Fault.KILL and case.point.startswith(UNDISTURBED):
            # another job's worker may not have had its order yet; one that had reported goes on
            assert [lost["reported"] for lost in stored["attempts"][:-1]] in ([], [0]), (job, stored)

    def _is_idle(self) -> bool:
        with suppress(OSError):
            status = self._service.ask("status")
            return status["broker"] == "up" and not status["active"] and not status["pending"]
        return False


class Wholes:
    """Makes a whole when there is none; one that did not survive is not used again."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._whole: Whole | None = None
        self._folder = Path()

    def hit(self, case: Case) -> None:
        if self._whole is None:
            self._folder = Path(tempfile.mkdtemp(prefix="solstice-crash-"))
            self._whole = Whole(self._broker.new_vhost(), self._folder)
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

    def _discard(self) -> None:
        whole, self._whole = self._whole, None
        if whole is not None:
            whole.close()
        shutil.rmtree(self._folder)


def _may_repeat(case: Case) -> bool:
    """Whether it may fall between the broker's confirm and the deletion of some event: then that comes once more."""
    return case.fault is Fault.CUT or (case.fault is Fault.KILL and case.point.startswith("supervisor."))
