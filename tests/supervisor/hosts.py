"""A scheduler for tests: its clock, its free disk and the ends of its attempts are in the test's hand."""

from __future__ import annotations

import asyncio

from solstice.errors import Cause
from solstice.lifecycle import JobState, Phase
from solstice.model import Outcome
from solstice.supervisor.capacity import Limits, Resource
from solstice.supervisor.jobs import Active, Job
from solstice.supervisor.scheduler import Scheduler

FINE = Outcome(JobState.SUCCEEDED, exit_code=0)
FAILED = Outcome(JobState.ERRORED, Cause.HYPERVISOR, "no such network")
LIMITS = Limits(slots=10, per_image={}, booting=10, cpus=100, memory_mib=1 << 20, disk_mib=1 << 30, disk_floor_mib=1024)


class Host:
    def __init__(self, limits: Limits = LIMITS, now: float = 1000.0) -> None:
        self.now = now
        self.free_disk = 1 << 20
        self.ends: dict[str, asyncio.Future[Outcome]] = {}
        self.outcomes: dict[str, Outcome] = {}
        self.broken: set[str] = set()
        self.closed_gates: set[str] = set()
        self.started = asyncio.Event()
        self.scheduler = Scheduler(
            "0" * 12,
            limits,
            free_disk=lambda: self.free_disk,
            gate=self.gate,
            run=self.run,
            on_change=lambda: None,
            clock=lambda: self.now,
        )
        self.scheduler.open()

    def gate(self, waiting: Job) -> str | None:
        return "its gate is closed" if waiting.image.name in self.closed_gates else None

    async def run(self, active: Active) -> None:
        self.started.set()
        end = self.ends[active.job.id] = asyncio.get_running_loop().create_future()
        active.outcome = await end
        if active.job.id in self.broken:
            raise RuntimeError("a fault of ours")
        assert active.job.id not in self.outcomes, "a job ended twice"
        self.outcomes[active.job.id] = active.outcome

    async def settle(self) -> None:
        """Let every task that can run come to where it waits."""
        for _ in range(6):
            await asyncio.sleep(0)

    async def add(self, *jobs: Job) -> None:
        for each in jobs:
            self.scheduler.add(each)
        await self.settle()

    async def booted(self, job: Job) -> None:
        self.scheduler.active[job.id].phase = Phase.RUNNING
        self.scheduler.pump()
        await self.settle()

    async def end(self, job: Job, outcome: Outcome = FINE) -> None:
        self.ends[job.id].set_result(outcome)
        await self.settle()

    async def wait(self, seconds: float) -> None:
        """Let this much time pass; what is due then happens."""
        self.now += seconds
        self.scheduler.pump()
        await self.settle()

    @property
    def running(self) -> set[str]:
        return set(self.scheduler.active)

    def obstacle(self, job: Job) -> Resource | None:
        """What a pending job waits for."""
        (found,) = [obstacle for each, obstacle in self.scheduler.places() if each.id == job.id]
        return found.resource if found else None
