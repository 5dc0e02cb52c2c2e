"""Whose turn it is: priority, fair share, age, and what is reserved for a large job."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from solstice.model import Resources
from solstice.supervisor.capacity import Limits, Obstacle, Resource, Usage
from solstice.supervisor.jobs import Job
from solstice.supervisor.turns import AGING, RESERVE_AFTER, Turns, consider
from tests.supervisor.jobs import job

LIMITS = Limits(slots=100, per_image={}, booting=100, cpus=100, memory_mib=4096, disk_mib=0, disk_floor_mib=0)
LARGE = Resources(1, 4096)
NOW = 100.0


def started(
    pending: Iterable[Job],
    *,
    running: Iterable[Job] = (),
    limits: Limits = LIMITS,
    turns: Turns | None = None,
    now: float = NOW,
    shut: Iterable[Job] = (),
) -> list[Job]:
    """Those that one pass starts, in order."""
    running, closed = list(running), list(shut)
    usage = Usage(limits, 0)
    for each in running:
        usage.add(each.claim, booting=False)

    def gate(waiting: Job) -> Obstacle | None:
        return Obstacle(Resource.OTHER, "shut") if waiting in closed else None

    decisions = consider(pending, running, usage, gate, Turns() if turns is None else turns, now)
    return [each for each, obstacle in decisions if obstacle is None]


def slots(count: int) -> Limits:
    return replace(LIMITS, slots=count)


def test_the_higher_priority_goes_first_and_among_equals_the_older() -> None:
    low, old, young, urgent = job(priority=0), job(), job(), job(priority=9)
    assert started([low, old, young, urgent]) == [urgent, old, young, low]


def test_half_an_hour_of_waiting_is_one_level_of_priority() -> None:
    patient, fresh = job(priority=4, since=NOW - AGING), job(priority=5, since=NOW)
    assert started([fresh, patient]) == [patient, fresh]
    assert started([fresh, replace(patient, since=NOW - AGING + 1)])[0] is fresh


def test_free_slots_are_shared_between_repositories() -> None:
    many = [job(repo="many") for _ in range(10)]
    few = [job(repo="few") for _ in range(2)]
    assert started([*many, *few], limits=slots(4)) == [many[0], few[0], many[1], few[1]]


def test_who_has_fewer_running_goes_first() -> None:
    busy, idle = job(repo="busy"), job(repo="idle")
    assert started([busy, idle], running=[job(repo="busy")], limits=slots(2)) == [idle]


def test_on_one_slot_repositories_take_turns() -> None:
    turns = Turns()
    many = [job(repo="many") for _ in range(4)]
    few = [job(repo="few") for _ in range(2)]
    order: list[Job] = []
    waiting = [*many, *few]
    for second in range(6):
        (one,) = started(waiting, limits=slots(1), turns=turns, now=NOW + second)
        order.append(one)
        waiting.remove(one)
    assert order == [many[0], few[0], many[1], few[1], many[2], many[3]]


def test_priority_stands_above_fair_share() -> None:
    urgent, fair = job(repo="busy", priority=6), job(repo="idle")
    assert started([fair, urgent], running=[job(repo="busy")], limits=slots(2)) == [urgent]


def test_a_full_label_and_a_shut_gate_block_nobody_else() -> None:
    full, shut, free = job("full"), job("shut"), job("free")
    limits = replace(LIMITS, per_image={"full": 0})
    assert started([full, shut, free], limits=limits, shut=[shut]) == [free]


def test_small_jobs_overtake_a_large_one_until_it_has_a_reservation() -> None:
    turns, large, small = Turns(), job(resources=LARGE), job("b")
    others = [job("b"), job("b"), job("b")]
    assert started([large, small], running=others, turns=turns) == [small]
    others.append(small)
    later = [job("b"), job("b")]
    # one of those that ran has ended: there is room for a small one again
    at = NOW + RESERVE_AFTER - 1
    assert started([large, *later], running=others[:3], turns=turns, now=at) == [later[0]]
    assert started([large, *later], running=others[:3], turns=turns, now=NOW + RESERVE_AFTER) == []
    assert started([large, *later], turns=turns, now=NOW + RESERVE_AFTER + 1) == [large]
    assert large.id not in turns.overtaken


def test_a_reservation_does_not_hold_those_before_it() -> None:
    turns, large, urgent = Turns(), job(resources=LARGE), job("b", priority=9)
    turns.overtaken[large.id] = NOW - RESERVE_AFTER
    assert started([large, urgent], running=[job("b")], turns=turns) == [urgent]


def test_a_large_job_that_nobody_overtook_reserves_nothing() -> None:
    turns, large = Turns(), job(resources=LARGE)
    assert started([large], running=[job("b")], turns=turns, now=NOW) == []
    assert turns.overtaken == {}


def test_what_is_over_is_forgotten() -> None:
    kept, gone = job(repo="kept"), job(repo="gone")
    turns = Turns({"kept": 1.0, "gone": 2.0}, {kept.id: 1.0, gone.id: 2.0})
    turns.forget(["kept"], [kept.id])
    assert turns == Turns({"kept": 1.0}, {kept.id: 1.0})


def test_nothing_is_reserved_for_a_job_that_would_not_fit_an_empty_host_either() -> None:
    turns, small = Turns(), job("b")
    too_large = job(resources=Resources(1, 1, 80))  # of a disk that is full of other things
    turns.overtaken[too_large.id] = NOW - RESERVE_AFTER
    assert started([too_large, small], turns=turns) == [small]
