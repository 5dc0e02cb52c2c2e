"""How the end of an attempt becomes the end of its job, or the beginning of another attempt."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from typing import Any

import pytest

from solstice.errors import Cause
from solstice.host.places import Places
from solstice.lifecycle import JobState, Phase
from solstice.model import AttemptId, Outcome
from solstice.protocol import reports
from solstice.protocol.order import Stop
from solstice.supervisor.attempt import FIRST_RETRY_DELAY, MAX_RETRY_DELAY, Attempts
from solstice.supervisor.children import Heard
from solstice.supervisor.endings import cancelled, errored
from solstice.supervisor.jobs import Active
from tests.supervisor.jobs import job

FAILED = errored(Cause.HYPERVISOR, "no such network")


class Store:
    """Takes every change and remembers it."""

    def __init__(self) -> None:
        self.changes: list[tuple[str, dict[str, Any]]] = []

    async def change(self, op: str, **fields: Any) -> None:
        self.changes.append((op, fields))


def attempts_of(store: Store) -> Attempts:
    return Attempts("host", Places(Path("/x"), Path("/x")), store, None, lambda: None)  # type: ignore[arg-type]


def heard(report: reports.Report) -> Store:
    """What the store was told of one report."""
    store, one = Store(), job()
    active = Active(one, AttemptId("0" * 12, one.id, 1), since=0.0)
    asyncio.run(attempts_of(store)._hear(active, Heard(report, 7, 1.0)))
    return store


def ended(outcome: Outcome, *, failures: int = 0, most: int = 3, stop: Stop | None = None) -> tuple[Active, Store]:
    """An attempt that ended so, as its worker reported it, and what the store was told."""
    store = Store()
    attempts = attempts_of(store)
    attempts.max_attempts = most
    one = job()
    one.failures = failures
    active = Active(one, AttemptId("0" * 12, one.id, failures + 1), since=0.0)
    if stop is not None:
        active.stop(stop)
    asyncio.run(attempts._hear(active, Heard(reports.Ended(outcome), 7, 1.0)))
    return active, store


def test_a_step_is_stored_with_its_number_and_with_both_clocks() -> None:
    store = heard(reports.Step(0, "build", 3, guest_at=1000))
    ((op, fields),) = store.changes
    assert (op, fields["kind"], fields["number"], fields["at"], fields["guest_at"]) == ("report", "step", 7, 1.0, 1000)
    assert (fields["report"]["name"], fields["report"]["exit_code"]) == ("build", 3)


def test_a_phase_that_begins_with_a_word_of_the_guest_is_stored_with_its_time() -> None:
    ((op, fields),) = heard(reports.PhaseEntered(Phase.RUNNING, 1000)).changes
    assert (op, fields["phase"], fields["at"], fields["guest_at"]) == ("phase", "running", 1.0, 1000)


def test_a_failure_of_the_host_puts_the_job_back_with_the_reports_number() -> None:
    active, store = ended(FAILED)
    ((op, fields),) = store.changes
    assert (op, fields["counted"], fields["cause"], fields["number"]) == ("release", True, "infra.hypervisor", 7)
    assert active.again is not None
    assert (active.again.attempt, active.again.failures) == (2, 1)


def test_the_last_attempt_ends_the_job() -> None:
    active, store = ended(FAILED, failures=2)
    assert [op for op, _ in store.changes] == ["finish"]
    assert active.again is None


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome(JobState.SUCCEEDED, exit_code=0),
        Outcome(JobState.FAILED, Cause.STEP_FAILED, exit_code=1),
        Outcome(JobState.TIMED_OUT, Cause.TIMEOUT),
    ],
)
def test_what_is_the_jobs_own_is_not_tried_again(outcome: Outcome) -> None:
    active, store = ended(outcome)
    assert [op for op, _ in store.changes] == ["finish"]
    assert active.again is None


def test_each_further_failure_waits_twice_as_long() -> None:
    delays = []
    for failures in range(9):
        _, store = ended(FAILED, failures=failures, most=20)
        ((_, fields),) = store.changes
        delays.append(fields["not_before"])
    waits = [round(later - earlier) for earlier, later in itertools.pairwise(delays)]
    assert waits[:3] == [FIRST_RETRY_DELAY, 2 * FIRST_RETRY_DELAY, 4 * FIRST_RETRY_DELAY]
    assert sum(waits) + FIRST_RETRY_DELAY <= MAX_RETRY_DELAY + 1


def test_a_host_that_stops_does_not_use_up_an_attempt() -> None:
    active, store = ended(errored(Cause.HOST_STOPPING, "stop"), failures=2)
    ((op, fields),) = store.changes
    assert (op, fields["counted"]) == ("release", False)
    assert active.again is not None
    assert active.again.failures == 2


def test_a_job_that_was_cancelled_and_then_failed_by_the_host_stays_cancelled() -> None:
    active, store = ended(FAILED, stop=Stop(cancelled("by an operator")))
    ((op, fields),) = store.changes
    assert (op, fields["state"], fields["cause"]) == ("finish", "cancelled", "user.cancelled")
    assert active.again is None
