"""A whole Solstice, which is driven to a point, hit there, and looked at when all of its jobs have ended.

One whole serves any number of cases, one after the other: what a case left behind would be found by its own last look,
or at the latest when the whole is ended.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import psutil

from solstice.host import racepoints
from tests.crash.disk import Disk
from tests.crash.leftovers import look_for_leftovers
from tests.crash.matrix import Case, Fault
from tests.crash.parts import Backend, Database
from tests.crash.results import Results
from tests.e2e.service import Service
from tests.racing import Race
from tests.real.recorder import Recorder
from tests.real.waiting import until

SHORT = 0.0
LONG = 2.0
FOR_EVER = 600.0
SECONDS = 90.0
HASTE = 20.0
# Longer than any deadline that one process has for another, as HASTE makes them.
STOPPED = 7.0
# Nobody has a deadline for these: a store may take its time, and of a supervisor only its service manager asks.
UNWATCHED = ("supervisor.", "store.")
STOPPED_UNWATCHED = 2.0
FAILING = 1.0
# More than are used up while a disk fails: between them it is hardly waited for, as HASTE makes it.
ATTEMPTS = 5
NOT_CLEANED = ("worker.failed.", "supervisor.failed.")

# Without a worker's order, or after its crash, a killed supervisor costs an attempt; otherwise its workers go on.
UNDISTURBED = tuple(
    f"supervisor.{word}."
    for word in ("accept", "identity", "phase", "step", "outcome", "done", "close", "publish", "reconcile")
)


class Whole:
    """`folder` has the race points already; at its end, however that comes, the back end is closed too."""

    def __init__(self, url: str, folder: Path, race: Race, disk: Disk, backend: Backend, database: Database) -> None:
        self._race, self._disk, self._backend, self._database = race, disk, backend, database
        with ExitStack() as stack:
            self._recorder = stack.enter_context(Recorder(url))
            environment = {**disk.environment, racepoints.HASTE: str(HASTE), **backend.settings}
            if database.url is not None:
                environment["DATABASE_URL"] = database.url
            self._service = Service(
                folder,
                self._recorder.url,
                backend.image,
                MAX_ATTEMPTS=str(ATTEMPTS),
                MAX_CONCURRENCY="4",
                CAPACITY_MAP="tiny=4",
                **environment,
            )
            self._results = Results(url)
            self._jobs: list[str] = []
            stack.callback(lambda: backend.close(self._service))
            stack.callback(self._service.close)
            self._service.start()
            self._closing = stack.pop_all()

    def hit(self, case: Case) -> None:
        """One case; raises `AssertionError` if the whole does not survive it."""
        if case.point.startswith(NOT_CLEANED):
            jobs, pid = self._drive_a_failure(case.point)
        else:
            jobs = self._drive(case.point)
            pid = self._reached(case.point)
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
        if point.startswith("worker.collecting."):
            return [self._submit(FOR_EVER, timeout_s=1)]
        # one that is still there when the supervisor is back; a worker that is hit needs none
        last = SHORT if point.startswith("worker.") else LONG
        return [self._submit(last), *(self._submit(SHORT) for _ in range(self._backend.others))]

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
        return [running, *(self._submit(SHORT) for _ in range(self._backend.others))]

    def _drive_a_failure(self, point: str) -> tuple[list[str], int]:
        """A worker that cannot clean its VM says so; when the point is reached, it could be cleaned again."""
        running = self._running_job()
        self._race.arm(point)
        self._backend.fail_to_clean(self._service, running)
        try:
            return [running], self._reached(point)
        finally:
            self._backend.let_clean(self._service, running)

    def _reached(self, point: str) -> int:
        """The pid of the process that stands there."""
        reached, pid = self._race.reached()
        assert reached == point
        return pid

    def _running_job(self) -> str:
        job = self._submit(LONG)
        self._service.said(rf"attempt is running .*job={job}", seconds=SECONDS)
        return job

    def _submit(self, seconds: float, **fields: Any) -> str:
        """A job that takes so long, on either back end."""
        job = self._service.submit(f"sleep {seconds}", env={"NOOP_SECONDS": str(seconds)}, **fields)
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
            case Fault.FULL:
                self._disk.fail(errno.ENOSPC, f"{self._service.state}/")
                self._go_on_for_a_while(pid)
                self._disk.heal()
            case Fault.BROKEN:
                self._database.fail(self._service)
                self._go_on_for_a_while(pid)
                self._database.heal()
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

    def _go_on_for_a_while(self, pid: int) -> None:
        os.kill(pid, signal.SIGCONT)
        time.sleep(FAILING)  # what it does meanwhile is its own affair

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
            self._backend.look(self._service)
        except AssertionError as error:
            raise AssertionError(f"{case}: {error}\n{self._service.text[-8000:]}") from error

    def _look_at(self, job: str, case: Case) -> None:
        """It ended as it should, as the fault cost it one attempt at most, and said so once."""
        ended = self._results.of[job]
        stored = self._service.ask("job", job=job)
        wanted = "timed_out" if case.point.startswith("worker.collecting.") else "succeeded"
        assert ended.states == {stored["job"]["state"]} == {wanted}, (job, ended, stored)
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


def _may_repeat(case: Case) -> bool:
    """Whether it may fall between the broker's confirm and the deletion of some event: then that comes once more."""
    return case.fault is Fault.CUT or (case.fault is Fault.KILL and case.point.startswith("supervisor."))
