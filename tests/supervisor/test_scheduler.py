"""The scheduler with attempts that end when the test says so."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from solstice.model import Image, JobRequest, Resources, Step
from solstice.supervisor.capacity import Capacity
from solstice.supervisor.jobs import Active, Job
from solstice.supervisor.scheduler import Scheduler


def job(image: str) -> Job:
    request = JobRequest(str(uuid.uuid4()), image, (Step("one", "true"),))
    return Job(request, image, Image(image, "/x", Path("/x")), Resources())


class Host:
    """A scheduler, and the ends of its attempts in the test's hand."""

    def __init__(self, total: int, per_image: dict[str, int]) -> None:
        self.ends: dict[str, asyncio.Event] = {}
        self.broken: set[str] = set()
        self.closed_gates: set[str] = set()
        capacity = Capacity(total, per_image)
        self.scheduler = Scheduler("0" * 12, capacity, self.gate, self.run, lambda: None)

    def gate(self, waiting: Job) -> str | None:
        return "its gate is closed" if waiting.image.name in self.closed_gates else None

    async def run(self, active: Active) -> None:
        end = self.ends[active.job.id] = asyncio.Event()
        await end.wait()
        if active.job.id in self.broken:
            raise RuntimeError("a fault of ours")

    async def settle(self) -> None:
        """Let every task that can run come to where it waits."""
        for _ in range(5):
            await asyncio.sleep(0)

    async def end(self, ended: Job) -> None:
        self.ends[ended.id].set()
        await self.settle()

    @property
    def running(self) -> set[str]:
        return set(self.scheduler.active)


def test_a_job_that_must_wait_does_not_block_the_one_behind_it() -> None:
    async def scenario() -> None:
        host = Host(2, {"a": 1})
        first, second, third = job("a"), job("a"), job("b")
        for each in (first, second, third):
            host.scheduler.add(each)
        await host.settle()
        assert host.running == {first.id, third.id}
        assert "MAX_CONCURRENCY" in str(host.scheduler.obstacle(second))
        await host.end(first)
        assert host.running == {second.id, third.id}
        for each in (second, third):
            await host.end(each)
        assert host.running == set()

    asyncio.run(scenario())


def test_pumping_often_starts_nothing_twice() -> None:
    async def scenario() -> None:
        host = Host(5, {})
        only = job("a")
        host.scheduler.add(only)
        for _ in range(10):
            host.scheduler.pump()
        await host.settle()
        assert list(host.ends) == [only.id]
        await host.end(only)

    asyncio.run(scenario())


def test_a_closed_gate_holds_a_job_until_the_pass_after_it_opens() -> None:
    async def scenario() -> None:
        host = Host(5, {})
        host.closed_gates.add("a")
        held = job("a")
        host.scheduler.add(held)
        assert host.scheduler.obstacle(held) == "its gate is closed"
        host.closed_gates.clear()
        host.scheduler.pump()
        await host.settle()
        assert host.running == {held.id}
        await host.end(held)

    asyncio.run(scenario())


def test_closed_it_starts_nothing_and_knows_when_it_is_idle() -> None:
    async def scenario() -> None:
        host = Host(1, {})
        first, second = job("a"), job("a")
        host.scheduler.add(first)
        host.scheduler.add(second)
        await host.settle()
        host.scheduler.close()
        assert not await host.scheduler.idle(0.01)
        await host.end(first)
        assert await host.scheduler.idle(1.0)
        assert list(host.scheduler.pending) == [second.id]
        assert list(host.ends) == [first.id]

    asyncio.run(scenario())


LIMITS = {"a": 1, "b": 2}


@given(st.lists(st.sampled_from(["a", "b", "c", "end the oldest", "end the youngest"]), max_size=25))
def test_whatever_comes_and_ends_no_limit_is_exceeded_and_every_job_has_its_turn(happenings: list[str]) -> None:
    async def scenario() -> None:
        host = Host(3, LIMITS)
        added: list[Job] = []

        def held() -> list[str]:
            return [active.job.image.name for active in host.scheduler.active.values()]

        for happening in happenings:
            if not happening.startswith("end"):
                added.append(job(happening))
                host.scheduler.add(added[-1])
                await host.settle()
            elif host.running:
                jobs = [active.job for active in host.scheduler.active.values()]
                await host.end(jobs[0 if "oldest" in happening else -1])
            assert len(held()) <= 3
            assert all(held().count(name) <= limit for name, limit in LIMITS.items())
            assert all(host.scheduler.obstacle(waiting) for waiting in host.scheduler.pending.values())
        while host.running:
            await host.end(next(iter(host.scheduler.active.values())).job)
        assert sorted(host.ends) == sorted(each.id for each in added)

    asyncio.run(scenario())


def test_an_attempt_lost_by_a_fault_of_ours_keeps_its_slot_and_is_told(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        host = Host(1, {})
        lost, waiting = job("a"), job("a")
        host.broken.add(lost.id)
        host.scheduler.add(lost)
        host.scheduler.add(waiting)
        await host.settle()
        await host.end(lost)
        assert host.running == {lost.id}
        assert list(host.scheduler.pending) == [waiting.id]
        assert await host.scheduler.idle(0.0)

    asyncio.run(scenario())
    (record,) = caplog.records
    assert (record.levelname, record.message) == ("CRITICAL", "attempt lost by a fault of Solstice")
