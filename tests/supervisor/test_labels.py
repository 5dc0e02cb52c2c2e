"""Pause and quarantine, on a clock in the test's hand."""

from __future__ import annotations

import pytest

from solstice.errors import Cause
from solstice.lifecycle import JobState
from solstice.model import Outcome
from solstice.supervisor.labels import FIRST_DELAY, MAX_DELAY, THRESHOLD, Labels

NOW = 1000.0
FAILED = Outcome(JobState.ERRORED, Cause.HYPERVISOR, "no such network")
FINE = Outcome(JobState.SUCCEEDED, exit_code=0)


def quarantined() -> Labels:
    labels = Labels()
    for number in range(THRESHOLD):
        labels.ended("a", f"job {number}", FAILED, NOW)
    return labels


def test_a_pause_holds_its_image_alone_and_one_of_the_host_holds_all() -> None:
    labels = Labels({"a"})
    assert "solstice resume a" in str(labels.obstacle("a", NOW))
    assert labels.obstacle("b", NOW) is None
    labels.all_paused = True
    assert "solstice resume" in str(labels.obstacle("b", NOW))


def test_failures_of_the_host_in_a_row_lead_to_quarantine_with_the_reason() -> None:
    labels = Labels()
    for number in range(THRESHOLD):
        assert labels.obstacle("a", NOW) is None
        labels.ended("a", f"job {number}", FAILED, NOW)
    text = str(labels.obstacle("a", NOW))
    assert "no such network" in text
    assert "the next try is in 10 s" in text
    assert labels.obstacle("b", NOW) is None
    assert labels.next_change(NOW) == NOW + FIRST_DELAY


@pytest.mark.parametrize(
    "outcome", [FINE, Outcome(JobState.FAILED, Cause.STEP_FAILED), Outcome(JobState.TIMED_OUT, Cause.TIMEOUT)]
)
def test_a_job_that_the_host_carried_out_begins_the_count_anew(outcome: Outcome) -> None:
    labels = Labels()
    for _ in range(5):
        for number in range(THRESHOLD - 1):
            labels.ended("a", f"job {number}", FAILED, NOW)
        labels.ended("a", "well", outcome, NOW)
    assert labels.obstacle("a", NOW) is None


@pytest.mark.parametrize("cause", [Cause.HOST_STOPPING, Cause.HOST_LOST, Cause.CANCELLED])
def test_a_stop_or_a_cancel_counts_neither_way(cause: Cause) -> None:
    labels = Labels()
    for number in range(THRESHOLD - 1):
        labels.ended("a", f"job {number}", FAILED, NOW)
    labels.ended("a", "neutral", Outcome(JobState.ERRORED, cause), NOW)
    assert labels.obstacle("a", NOW) is None
    labels.ended("a", "third", FAILED, NOW)
    assert labels.obstacle("a", NOW) is not None


def test_after_the_delay_one_job_at_a_time_is_let_through() -> None:
    labels, later = quarantined(), NOW + FIRST_DELAY
    assert labels.obstacle("a", later) is None
    labels.started("a", "probe")
    assert "job probe is the next try" in str(labels.obstacle("a", later))
    labels.ended("a", "probe", FINE, later)
    assert labels.obstacle("a", later) is None
    assert labels.next_change(later) is None


def test_each_probe_that_fails_doubles_the_delay_up_to_an_hour() -> None:
    labels, now, delays = quarantined(), NOW, []
    for number in range(12):
        until = labels.next_change(now)
        assert until is not None
        delays.append(until - now)
        now = until
        labels.started("a", f"probe {number}")
        labels.ended("a", f"probe {number}", FAILED, now)
    assert delays[:4] == [10.0, 20.0, 40.0, 80.0]
    assert delays[-1] == MAX_DELAY


def test_those_that_began_before_the_quarantine_do_not_lengthen_it() -> None:
    labels = quarantined()
    labels.ended("a", "late", FAILED, NOW + 5)
    assert labels.next_change(NOW + 5) == NOW + FIRST_DELAY


def test_a_probe_that_was_stopped_leaves_room_for_the_next() -> None:
    labels, later = quarantined(), NOW + FIRST_DELAY
    labels.started("a", "probe")
    labels.ended("a", "probe", Outcome(JobState.CANCELLED, Cause.CANCELLED), later)
    assert labels.obstacle("a", later) is None


def test_resume_ends_pause_and_quarantine() -> None:
    labels = quarantined()
    labels.paused.add("a")
    labels.resume("a")
    assert labels.obstacle("a", NOW) is None
