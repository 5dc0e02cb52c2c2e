"""The life of one VM, as a list of steps: prepare ─ boot ─ run ─ collect ─ clean.

Called in a worker with its order.  Whatever happens in the first steps becomes an outcome, the outcome is reported,
and then comes `clean`, always; with a supervisor or without.  Deadlines are computed once, when their phase begins.
If this process dies, the supervisor learns it from the link's end and has a clean-up worker go over the same ground
(worker/cleanup.py).
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace

from setproctitle import setproctitle

from solstice.errors import Cause, DeadlineExpired, InfraError, os_failure
from solstice.host import racepoints
from solstice.host.channel import Closed
from solstice.hypervisors import router
from solstice.hypervisors.base import Hypervisor
from solstice.hypervisors.noop import Noop
from solstice.lifecycle import JobState, Phase
from solstice.model import Outcome
from solstice.protocol import order, reports
from solstice.protocol.session import Begin, Cancel, Event, encode
from solstice.worker import session_process, steps
from solstice.worker.job import Job
from solstice.worker.link import Link
from solstice.worker.watch import Stopped, Watch

SHUTDOWN_RESEND = 5.0
COLLECT_TIMEOUT = 5.0
NOOP_DETAIL = "the back end noop ran nothing"


class Life:
    def __init__(self, what: order.Run, link: Link) -> None:
        self._order = what
        self._vm = what.vm
        self._link = link
        steps.make_directories(what.vm, what.record)
        # Forked before anything of the hypervisor's is open, so that the session has nothing of it.
        self._session = session_process.start(what.vm, what.record)
        self._watch = Watch(link, self._session.channel)
        self._hypervisor: Hypervisor | None = None
        self._started = False
        self._greeted_at: int | None = None
        self._job: Job | None = None
        self._hurry = False
        self._asked_to_stop = False

    def run(self) -> None:
        """From nothing to a VM and back to nothing.  Raises `InfraError` only if the cleaning fails."""
        outcome = self._outcome()
        self._link.send(reports.Ended(outcome))
        self._enter(Phase.CLEANING)
        self._clean()

    def _outcome(self) -> Outcome:
        try:
            hypervisor = self._prepare()
            self._boot(hypervisor)
            return self._run(hypervisor)
        except Stopped as stopped:
            self._hurry = stopped.stop.hurry
            self._asked_to_stop = True
            return self._collect(stopped.stop.outcome)
        except InfraError as error:
            failure = error
        except OSError as error:
            failure = os_failure(error, Cause.HYPERVISOR)
        return self._collect(Outcome(JobState.ERRORED, failure.cause, failure.why))

    def _prepare(self) -> Hypervisor:
        self._enter(Phase.PREPARING)
        self._hypervisor = router.open(self._order.hypervisor)
        request = self._order.request
        begin = Begin(tuple(self._hypervisor.peers()), request, _environment(self._order))
        self._session.channel.send(encode(begin))
        racepoints.reach("worker.prepare.before")
        steps.prepare(self._hypervisor, self._vm)
        racepoints.reach("worker.prepare.after")
        return self._hypervisor

    def _boot(self, hypervisor: Hypervisor) -> None:
        self._enter(Phase.BOOTING)
        limit = self._order.limits.boot
        deadline = time.monotonic() + limit
        racepoints.reach("worker.start.before")
        hypervisor.start(self._vm.id)
        racepoints.reach("worker.start.after")
        self._started = True
        if hypervisor.carries_guest:
            hello = self._watch.until(Event.HELLO, deadline)
            if hello is None:
                raise DeadlineExpired(Cause.BOOT_TIMEOUT, f"no word from the runner within {limit:g} s")
            self._greeted_at = hello.guest_at

    def _run(self, hypervisor: Hypervisor) -> Outcome:
        self._enter(Phase.RUNNING, self._greeted_at)
        if not hypervisor.carries_guest:
            return self._rehearse()
        self._job = Job(self._order.request, self._order.request.timeout_s or self._order.limits.job, self._link.send)
        outcome = self._job.follow(self._watch)
        return self._collect(outcome) if outcome.state is JobState.TIMED_OUT else outcome

    def _rehearse(self) -> Outcome:
        """With nothing to run, let time pass as the request wants it."""
        deadline = time.monotonic() + Noop.seconds(self._order.request.env)
        while self._watch.next(deadline) is not None:
            pass
        return Outcome(JobState.SUCCEEDED, detail=NOOP_DETAIL, exit_code=0)

    def _collect(self, outcome: Outcome) -> Outcome:
        """Give a running job a moment to end its step and its output.  Its outcome stands already."""
        if self._job is None:
            return outcome
        self._enter(Phase.COLLECTING)
        # Whatever the guest does now, or fails to do, cleaning comes next.
        with contextlib.suppress(InfraError, Closed):
            self._session.channel.send(encode(Cancel()))
            self._wait_for_the_last_output()
        return replace(outcome, steps=self._job.results)

    def _wait_for_the_last_output(self) -> None:
        try:
            if not self._hurry:
                self._watch.until(Event.FINISHED, time.monotonic() + COLLECT_TIMEOUT)
        except Stopped as stopped:
            self._hurry = stopped.stop.hurry

    def _clean(self) -> None:
        if self._hypervisor is not None:
            if self._hypervisor.carries_guest and self._is_worth_asking():
                self._shut_down(self._hypervisor)
            steps.destroy_and_remove(self._hypervisor, self._vm.id, self._vm.directory, "worker")
            self._hypervisor.close()
        self._session.end()
        steps.remove_directory(self._vm)

    def _is_worth_asking(self) -> bool:
        """A guest that ran, or one that boots while its host stops, is asked; one that never came up is not."""
        return self._job is not None or (self._started and self._asked_to_stop)

    def _shut_down(self, hypervisor: Hypervisor) -> None:
        """ACPI, sent again and again: the first may have come before the guest listened."""
        deadline = time.monotonic() + self._order.limits.shutdown
        while not self._hurry and not self._watch.gone and time.monotonic() < deadline:
            hypervisor.request_shutdown(self._vm.id)
            try:
                if self._watch.until_gone(min(deadline, time.monotonic() + SHUTDOWN_RESEND)):
                    return
            except Stopped as stopped:
                self._hurry = self._hurry or stopped.stop.hurry

    def _enter(self, phase: Phase, guest_at: int | None = None) -> None:
        setproctitle(f"solstice: worker {self._vm.id.short} {self._vm.label} {phase}")
        self._link.send(reports.PhaseEntered(phase, guest_at))


def _environment(what: order.Run) -> dict[str, str]:
    """What every step finds, whatever the request says."""
    request = what.request
    found = {
        "CI": "true",
        "SOLSTICE": "true",
        "SOLSTICE_JOB_ID": request.request_id,
        "SOLSTICE_ATTEMPT": str(what.vm.id.attempt),
        "SOLSTICE_LABEL": what.vm.label,
        "SOLSTICE_REPO_URL": request.repo_url,
        "SOLSTICE_COMMIT_SHA": request.commit_sha,
        "SOLSTICE_REF": request.ref,
    }
    return {name: value for name, value in found.items() if value}
