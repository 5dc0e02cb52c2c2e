"""Estimates of a start, with run times that the test knows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from solstice.model import Resources
from solstice.supervisor.capacity import Limits, Obstacle, Resource
from solstice.supervisor.forecast import MOST, Forecast, Running
from solstice.supervisor.jobs import Job
from solstice.supervisor.turns import Turns
from tests.supervisor.jobs import job

LIMITS = Limits(slots=1, per_image={}, booting=1, cpus=100, memory_mib=4096, disk_mib=0, disk_floor_mib=0)
PAST = {"a": 60.0, "b": 10.0}


def start_of(
    wanted: Job,
    pending: list[Job],
    running: list[Running],
    *,
    limits: Limits = LIMITS,
    past: dict[str, float] | None = None,
    shut: list[Job] | None = None,
) -> float | None:
    def gate(waiting: Job) -> Obstacle | None:
        return Obstacle(Resource.OTHER, "shut") if waiting in (shut or []) else None

    return Forecast(limits, 0, gate, Turns(), PAST if past is None else past).start_of(wanted, pending, running, 50.0)


def test_one_slot_is_free_when_all_before_have_run() -> None:
    runs, first, wanted = job("a"), job("b"), job("a")
    assert start_of(wanted, [first, wanted], [Running(runs, 20.0)]) == 40.0 + 10.0


def test_what_could_start_now_starts_in_no_time() -> None:
    wanted = job("a")
    assert start_of(wanted, [wanted], []) == 0.0


def test_a_free_label_does_not_wait_for_a_full_one() -> None:
    limits = replace(LIMITS, slots=2, per_image={"a": 1})
    runs, full, wanted = job("a"), job("a"), job("b")
    assert start_of(wanted, [full, wanted], [Running(runs, 0.0)], limits=limits) == 0.0
    assert start_of(full, [full, wanted], [Running(runs, 0.0)], limits=limits) == 60.0


def test_memory_is_waited_for_as_slots_are() -> None:
    limits = replace(LIMITS, slots=10)
    runs = [Running(job("b"), 1.0), Running(job("a"), 50.0)]
    wanted = job("a", resources=Resources(1, 4096))
    assert start_of(wanted, [wanted], runs, limits=limits) == pytest.approx(10.0)


def test_an_image_without_a_past_takes_the_mean_of_all() -> None:
    runs, wanted = job("new"), job("a")
    assert start_of(wanted, [wanted], [Running(runs, 0.0)]) == 35.0


def test_one_that_runs_longer_than_usual_may_end_at_any_time() -> None:
    wanted = job("a")
    assert start_of(wanted, [wanted], [Running(job("a"), 500.0)]) == 0.0


def test_without_a_past_or_behind_a_gate_nothing_is_estimated() -> None:
    wanted = job("a")
    assert start_of(wanted, [wanted], [Running(job("a"), 0.0)], past={}) is None
    assert start_of(wanted, [wanted], [], shut=[wanted]) is None


def test_behind_a_crowd_nothing_is_estimated() -> None:
    wanted = job("a")
    crowd = [job("a") for _ in range(MOST)]
    assert start_of(wanted, [*crowd, wanted], [Running(job("a"), 0.0)]) is None
