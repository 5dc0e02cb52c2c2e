"""Follows a job through its steps in the guest, under its deadlines, to an outcome.

The session drives the runner; here the clock is kept.  A timeout is an outcome, not an error: the caller goes on to
collect what there is.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

from solstice.errors import Cause
from solstice.lifecycle import JobState
from solstice.model import JobRequest, Outcome, StepResult
from solstice.protocol import reports
from solstice.protocol.session import CHECKOUT, Event, Told
from solstice.worker.watch import Watch

_CHECKOUT_NAME = "checkout"


class Job:
    """`limit` is the job's own time in seconds, from now; `report` is told when a step begins and ends."""

    def __init__(self, request: JobRequest, limit: float, report: Callable[[reports.Step], None]) -> None:
        self._request = request
        self._limit = limit
        self._report = report
        self._deadline = time.monotonic() + limit
        self._results: list[StepResult] = []
        self._running: int | None = None
        self._began = 0.0

    def follow(self, watch: Watch) -> Outcome:
        """How the job ended.  Raises as `Watch.next` does."""
        while (told := watch.next(self._next_deadline())) is not None:
            if told.event is Event.FINISHED:
                return self._verdict()
            self._note(told)
        return self._timed_out()

    @property
    def results(self) -> tuple[StepResult, ...]:
        """The steps that have ended so far."""
        return tuple(self._results)

    def _note(self, told: Told) -> None:
        if told.event is Event.STEP_STARTED:
            self._running, self._began = told.index, time.monotonic()
        elif told.event is Event.STEP_BEGAN:
            self._report(reports.Step(told.index, self._name(told.index), guest_at=told.guest_at))
        elif told.event is Event.STEP_ENDED:
            seconds = round(time.monotonic() - self._began, 3)
            self._results.append(StepResult(self._name(told.index), told.exit_code, seconds))
            self._running = None
            self._report(reports.Step(told.index, self._name(told.index), told.exit_code, told.guest_at))

    def _next_deadline(self) -> float:
        limit = self._step_limit()
        return min(self._deadline, self._began + limit) if limit else self._deadline

    def _step_limit(self) -> float:
        if self._running is None or self._running == CHECKOUT:
            return 0.0
        return self._request.steps[self._running].timeout_s

    def _verdict(self) -> Outcome:
        last = self._results[-1]
        if last.exit_code == 0:
            return Outcome(JobState.SUCCEEDED, exit_code=0, steps=self.results)
        detail = f"step {last.name!r} ended with {_ending(last.exit_code)}"
        return Outcome(JobState.FAILED, Cause.STEP_FAILED, detail, last.exit_code, self.results)

    def _timed_out(self) -> Outcome:
        if time.monotonic() < self._deadline and self._running is not None:
            detail = f"step {self._name(self._running)!r} took longer than its {self._step_limit():g} s"
        else:
            detail = f"the job took longer than its {self._limit:g} s"
        return Outcome(JobState.TIMED_OUT, Cause.TIMEOUT, detail, steps=self.results)

    def _name(self, index: int) -> str:
        return _CHECKOUT_NAME if index == CHECKOUT else self._request.steps[index].name


def _ending(exit_code: int) -> str:
    if exit_code > 128 and exit_code - 128 in set(signal.Signals):
        return f"exit status {exit_code} ({signal.Signals(exit_code - 128).name})"
    return f"exit status {exit_code}"
