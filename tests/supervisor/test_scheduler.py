"""The scheduler with attempts that end when the test says so."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from solstice.model import Outcome, Resources
from solstice.supervisor.capacity import Resource
from tests.supervisor.hosts import FAILED, FINE, LIMITS, Host
from tests.supervisor.jobs import job


def test_a_job_that_must_wait_does_not_block_the_one_behind_it() -> None:
    async def scenario() -> None:
        host = Host(replace(LIMITS, slots=2, per_image={"a": 1}))
        first, second, third = job("a"), job("a"), job("b")
        await host.add(first, second, third)
        assert host.running == {first.id, third.id}
        assert host.obstacle(second) is Resource.SLOTS
        await host.end(first)
        assert host.running == {second.id, third.id}
        await host.end(second)
        await host.end(third)
        assert host.running == set()

    asyncio.run(scenario())


def test_sixty_jobs_of_a_full_label_do_not_hold_up_one_of_a_free_label() -> None:
    async def scenario() -> None:
        host = Host(replace(LIMITS, slots=10, per_image={"a": 1}))
        await host.add(*[job("a") for _ in range(60)])
        free = job("b")
        await host.add(free)
        assert free.id in host.running
        assert len(host.running) == 2

    asyncio.run(scenario())


def test_pumping_often_starts_nothing_twice() -> None:
    async def scenario() -> None:
        host, only = Host(), job()
        host.scheduler.add(only)
        for _ in range(10):
            host.scheduler.pump()
        await host.settle()
        assert list(host.ends) == [only.id]
        await host.end(only)

    asyncio.run(scenario())


def test_a_closed_gate_holds_a_job_until_the_pass_after_it_opens() -> None:
    async def scenario() -> None:
        host, held = Host(), job()
        host.closed_gates.add("a")
        await host.add(held)
        assert host.obstacle(held) is Resource.OTHER
        host.closed_gates.clear()
        host.scheduler.pump()
        await host.settle()
        assert host.running == {held.id}

    asyncio.run(scenario())


def test_a_vm_boots_until_its_phase_says_otherwise() -> None:
    async def scenario() -> None:
        host = Host(replace(LIMITS, booting=1))
        first, second = job(), job()
        await host.add(first, second)
        assert host.running == {first.id}
        assert host.obstacle(second) is Resource.BOOTING
        await host.booted(first)
        assert host.running == {first.id, second.id}

    asyncio.run(scenario())


def test_new_limits_hold_from_the_next_pass_on() -> None:
    async def scenario() -> None:
        host = Host(replace(LIMITS, slots=1))
        first, second = job(), job()
        await host.add(first, second)
        host.scheduler.limits = LIMITS
        host.scheduler.pump()
        await host.settle()
        assert host.running == {first.id, second.id}

    asyncio.run(scenario())


def test_free_disk_is_looked_at_again() -> None:
    async def scenario() -> None:
        host, waiting = Host(), job(resources=Resources(1, 1, 10))
        host.free_disk = 0
        await host.add(waiting)
        assert host.obstacle(waiting) is Resource.DISK
        host.free_disk = 1 << 20
        async with asyncio.timeout(30):
            await host.started.wait()
        assert host.running == {waiting.id}

    asyncio.run(scenario())


def test_after_failures_in_a_row_one_job_at_a_time_finds_out() -> None:
    async def scenario() -> None:
        host = Host()
        for _ in range(3):
            failing = job()
            await host.add(failing)
            await host.end(failing, FAILED)
        first, second = job(), job()
        await host.add(first, second)
        assert host.running == set()
        await host.wait(10)
        assert host.running == {first.id}
        assert "is the next try" in str(host.scheduler.gate(second))
        await host.end(first)
        assert host.running == {second.id}

    asyncio.run(scenario())


def test_closed_it_starts_nothing_and_knows_when_it_is_idle() -> None:
    async def scenario() -> None:
        host = Host(replace(LIMITS, slots=1))
        first, second = job(), job()
        await host.add(first, second)
        host.scheduler.close()
        assert not await host.scheduler.idle(0.01)
        await host.end(first)
        assert await host.scheduler.idle(1.0)
        assert list(host.scheduler.pending) == [second.id]
        assert list(host.ends) == [first.id]

    asyncio.run(scenario())


def test_places_say_the_order_and_change_nothing() -> None:
    async def scenario() -> None:
        host = Host(replace(LIMITS, slots=1))
        runs, low, high = job(), job(priority=1), job(priority=9)
        await host.add(runs)
        await host.add(low, high)
        for _ in range(3):
            assert [each.id for each, _ in host.scheduler.places()] == [high.id, low.id]
        assert host.running == {runs.id}

    asyncio.run(scenario())


def test_an_attempt_lost_by_a_fault_of_ours_keeps_its_slot_and_is_told(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        host = Host(replace(LIMITS, slots=1))
        lost, waiting = job(), job()
        host.broken.add(lost.id)
        await host.add(lost, waiting)
        await host.end(lost)
        assert host.running == {lost.id}
        assert list(host.scheduler.pending) == [waiting.id]
        assert await host.scheduler.idle(0.0)
        host.scheduler.forget_lost()
        await host.settle()
        assert host.running == {waiting.id}, "the store knew it as ended"

    asyncio.run(scenario())
    assert [record.message for record in caplog.records if record.levelname == "CRITICAL"] == [
        "attempt lost by a fault of Solstice"
    ]


def test_a_lost_attempt_that_the_store_does_not_know_waits_again() -> None:
    async def scenario() -> None:
        host, lost = Host(replace(LIMITS, slots=1)), job()
        host.broken.add(lost.id)
        await host.add(lost)
        await host.end(lost)
        host.broken.clear()
        await host.add(lost)
        assert not host.scheduler.active[lost.id].is_lost
        await host.end(lost)

    asyncio.run(scenario())


def test_an_outcome_says_how_it_ended() -> None:
    async def scenario(outcome: Outcome) -> dict[str, Outcome]:
        host, only = Host(), job()
        await host.add(only)
        await host.end(only, outcome)
        return host.outcomes

    for outcome in (FINE, FAILED):
        assert list(asyncio.run(scenario(outcome)).values()) == [outcome]
