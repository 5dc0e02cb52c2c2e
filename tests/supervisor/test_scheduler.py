"""The scheduler with attempts that end when the test says so."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path

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
        self.closed_gates: set[str] = set()
        capacity = Capacity(total, per_image)
        self.scheduler = Scheduler("0" * 12, capacity, self.gate, self.run, lambda: None)

    def gate(self, waiting: Job) -> str | None:
        return "its gate is closed" if waiting.image.name in self.closed_gates else None

    async def run(self, active: Active) -> None:
        end = self.ends[active.job.id] = asyncio.Event()
        await end.wait()

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
        assert "CAPACITY_MAP" in str(host.scheduler.obstacle(second)) or "MAX_CONCURRENCY" in str(
            host.scheduler.obstacle(second)
        )
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
