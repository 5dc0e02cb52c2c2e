"""What the supervisor holds in memory of a job that has not ended."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field, replace

from solstice.errors import Cause
from solstice.lifecycle import Phase
from solstice.model import AttemptId, Image, JobRequest, Outcome, Resources
from solstice.protocol.order import Stop
from solstice.supervisor.capacity import Claim
from solstice.supervisor.children import Worker

_BOOTING = (Phase.PREPARING, Phase.BOOTING)


@dataclass
class Job:
    """An accepted job.  `since` is when it was accepted, in monotonic seconds; `attempt` the number of its next one."""

    request: JobRequest
    label: str
    image: Image
    resources: Resources
    since: float
    attempt: int = 1
    failures: int = 0
    """How many attempts failed by the host's fault."""
    not_before: float = 0.0
    """When the next attempt may begin, in monotonic seconds."""

    @property
    def id(self) -> str:
        return self.request.request_id

    @property
    def claim(self) -> Claim:
        return Claim(self.image.name, self.resources)

    @property
    def group(self) -> tuple[str, str] | None:
        """The concurrency group: one repository cannot cancel another's jobs by naming their group."""
        name = self.request.concurrency_group
        return (self.request.repo_url, name) if name else None

    def after_failure(self, attempt: int, delay: float) -> Job:
        """The same job, for another attempt in `delay` seconds."""
        return replace(self, attempt=attempt + 1, failures=self.failures + 1, not_before=time.monotonic() + delay)

    def after_stop(self) -> Job:
        """The same job, put back because its host stops."""
        return replace(self, attempt=self.attempt + 1)


@dataclass
class Active:
    """An attempt that is not done: it counts against capacity until the host is free of it.

    `since` is when it began, in monotonic seconds.
    """

    job: Job
    id: AttemptId
    since: float
    phase: Phase = Phase.PREPARING
    outcome: Outcome | None = None
    worker: Worker | None = field(default=None, repr=False)
    stopping: Stop | None = None
    begun: asyncio.Event = field(default_factory=asyncio.Event, repr=False)
    """Its worker has said its first word, and could be adopted."""
    is_lost: bool = False
    """Nobody follows it any more, by a fault of ours; it is counted until the next pass over the store finds it."""
    again: Job | None = None
    """The job as it waits again when this attempt is done; None if it has ended."""

    @property
    def is_cancelled(self) -> bool:
        """Somebody was told that it will be."""
        return self.stopping is not None and self.stopping.outcome.cause is Cause.CANCELLED

    @property
    def is_booting(self) -> bool:
        return self.phase in _BOOTING

    def stop(self, stop: Stop) -> None:
        """End this attempt; also right if its worker is not there yet, or is at its end.

        The first reason stays, but for a cancel: such a job does not come back because its host stops as well.
        """
        if self.stopping is not None and stop.outcome.cause is not Cause.CANCELLED:
            stop = replace(stop, outcome=self.stopping.outcome)
        self.stopping = stop
        if self.worker is not None:
            self.worker.stop(stop)
