"""The scheduler under everything at once: requests, limits that change, ends, failures, cancels, pauses, restarts.

What must hold is computed here anew and in the most simple-minded way, not with the code under test.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from solstice.errors import Cause
from solstice.lifecycle import JobState
from solstice.model import Outcome, Resources
from solstice.supervisor.capacity import Limits
from solstice.supervisor.jobs import Job
from solstice.supervisor.turns import RESERVE_AFTER
from tests.supervisor.hosts import FAILED, FINE, LIMITS, Host
from tests.supervisor.jobs import job

IMAGES = ("a", "b", "c")
CANCELLED = Outcome(JobState.CANCELLED, Cause.CANCELLED)
SIZES = st.builds(Resources, st.integers(1, 4), st.integers(1, 6).map(lambda n: n * 512), st.sampled_from([0, 0, 20]))
limits = st.builds(
    Limits,
    slots=st.integers(1, 5),
    per_image=st.fixed_dictionaries({}, optional={"a": st.integers(1, 3), "b": st.integers(1, 2)}),
    booting=st.integers(1, 4),
    cpus=st.just(8.0),
    memory_mib=st.just(6 * 512),
    disk_mib=st.just(1 << 30),
    disk_floor_mib=st.just(1024),
)


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.accepted: dict[str, Job] = {}
        self.ended: dict[str, Outcome] = {}
        """What the store would have: it outlives the host."""
        self.host: Host

    def teardown(self) -> None:
        try:
            self.loop.run_until_complete(self.finish())
        finally:
            self.loop.close()

    @initialize(of=limits)
    def begin(self, of: Limits) -> None:
        self.host = self.loop.run_until_complete(self.new(of))

    @rule(
        image=st.sampled_from(IMAGES),
        repo=st.sampled_from(["", "x", "y"]),
        priority=st.integers(0, 9),
        size=SIZES,
    )
    def request(self, image: str, repo: str, priority: int, size: Resources) -> None:
        new = job(image, repo=repo, priority=priority, resources=size, since=self.host.now)
        self.accepted[new.id] = new
        self.do(self.host.add(new))

    @rule(number=st.integers(0, 20), outcome=st.sampled_from([FINE, FINE, FAILED, CANCELLED]))
    @precondition(lambda self: self.host.running)
    def an_attempt_ends(self, number: int, outcome: Outcome) -> None:
        self.do(self.host.end(self.pick(sorted(self.host.running), number), outcome))

    @rule(number=st.integers(0, 20))
    @precondition(lambda self: self.host.running)
    def a_vm_has_booted(self, number: int) -> None:
        self.do(self.host.booted(self.pick(sorted(self.host.running), number)))

    @rule(number=st.integers(0, 20))
    @precondition(lambda self: self.host.scheduler.pending)
    def a_pending_job_is_cancelled(self, number: int) -> None:
        gone = self.pick(sorted(self.host.scheduler.pending), number)
        del self.host.scheduler.pending[gone.id]
        self.end(gone.id, CANCELLED)

    @rule(of=limits)
    def the_limits_change(self, of: Limits) -> None:
        self.host.scheduler.limits = of
        self.do(self.host.wait(0))

    @rule(image=st.sampled_from(IMAGES), paused=st.booleans())
    def a_label_is_paused_or_resumed(self, image: str, paused: bool) -> None:
        if paused:
            self.host.scheduler.labels.paused.add(image)
        else:
            self.host.scheduler.labels.resume(image)
        self.do(self.host.wait(0))

    @rule(seconds=st.sampled_from([1.0, 10.0, RESERVE_AFTER, 2000.0]))
    def time_passes(self, seconds: float) -> None:
        self.do(self.host.wait(seconds))

    @rule()
    def the_host_restarts(self) -> None:
        """As recovery has it: what ran has lost its host, what waited waits again."""
        old = self.host
        for lost in old.running:
            self.end(lost, Outcome(JobState.ERRORED, Cause.HOST_LOST))
        waiting = list(old.scheduler.pending.values())
        self.loop.run_until_complete(self.kill(old))
        self.host = self.loop.run_until_complete(self.new(old.scheduler.limits, old.now + 1))
        self.do(self.host.add(*waiting))

    @invariant()
    def no_limit_is_exceeded_by_a_start(self) -> None:
        """Limits may shrink under what runs; but then nothing starts."""
        assert not self.overfull or self.started_now == set()

    @invariant()
    def every_accepted_job_is_in_one_place(self) -> None:
        places = [*self.host.running, *self.host.scheduler.pending, *self.ended]
        assert sorted(places) == sorted(self.accepted)

    @invariant()
    def no_job_waits_that_could_run(self) -> None:
        reserved = self.reserved()
        for waiting in self.host.scheduler.pending.values():
            if self.host.scheduler.gate(waiting) is None and self.fits(waiting, []):
                assert not self.fits(waiting, [each for each in reserved if each.id != waiting.id])

    # How things are, in the most simple-minded way

    def fits(self, new: Job, reserved: list[Job]) -> bool:
        of, active = self.host.scheduler.limits, list(self.host.scheduler.active.values())
        sized = [each.job for each in active] + reserved + [new]
        promised = sum(each.resources.disk_gib for each in sized) << 10
        return (
            len(active) < of.slots
            and sum(each.job.image.name == new.image.name for each in active)
            < of.per_image.get(new.image.name, of.slots)
            and sum(each.is_booting for each in active) < of.booting
            and sum(each.resources.cpus for each in sized) <= of.cpus
            and sum(each.resources.memory_mib for each in sized) <= of.memory_mib
            and (not new.resources.disk_gib or promised <= self.host.free_disk - of.disk_floor_mib)
        )

    def reserved(self) -> list[Job]:
        """Those that were overtaken for so long that others leave them room."""
        scheduler = self.host.scheduler
        since = scheduler.turns.overtaken
        return [each for id, each in scheduler.pending.items() if self.host.now - since.get(id, 1e9) >= RESERVE_AFTER]

    @property
    def overfull(self) -> bool:
        of, active = self.host.scheduler.limits, list(self.host.scheduler.active.values())
        names = [each.job.image.name for each in active]
        return (
            len(active) > of.slots
            or any(names.count(name) > limit for name, limit in of.per_image.items())
            or sum(each.is_booting for each in active) > of.booting
            or sum(each.job.resources.cpus for each in active) > of.cpus
            or sum(each.job.resources.memory_mib for each in active) > of.memory_mib
            or sum(each.job.resources.disk_gib for each in active) << 10 > self.host.free_disk - of.disk_floor_mib
        )

    # What the rules are made of

    started_now: set[str] = set()  # noqa: RUF012 - replaced, never changed

    def do(self, happening: object) -> None:
        before = self.host.running
        self.loop.run_until_complete(happening)  # type: ignore[arg-type]
        self.started_now = self.host.running - before
        for id, outcome in self.host.outcomes.items():
            if id not in self.ended:
                self.end(id, outcome)

    def end(self, id: str, outcome: Outcome) -> None:
        assert id not in self.ended, "a job ended twice"
        self.ended[id] = outcome

    def pick(self, ids: list[str], number: int) -> Job:
        return self.accepted[ids[number % len(ids)]]

    async def new(self, of: Limits, now: float = 1000.0) -> Host:
        return Host(of, now)

    async def kill(self, host: Host) -> None:
        host.scheduler.close()
        for end in host.ends.values():
            end.cancel()
        await host.settle()

    async def finish(self) -> None:
        """With every hold undone and each attempt let end, every accepted job ends, and ends once."""
        if not hasattr(self, "host"):
            return
        host = self.host
        host.scheduler.limits = replace(LIMITS, cpus=8, memory_mib=6 * 512)
        for image in IMAGES:
            host.scheduler.labels.resume(image)
        await host.wait(0)
        while host.running:
            await host.end(host.scheduler.active[min(host.running)].job)
        host.scheduler.close()
        assert not host.scheduler.pending
        assert sorted({**self.ended, **host.outcomes}) == sorted(self.accepted)


TestScheduler = Machine.TestCase
TestScheduler.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
