"""What the supervisor holds in memory of a job that has not ended."""

from __future__ import annotations

from dataclasses import dataclass, field

from solstice.lifecycle import Phase
from solstice.model import AttemptId, Image, JobRequest, Outcome, Resources
from solstice.protocol.order import Stop
from solstice.supervisor.children import Worker


@dataclass
class Job:
    """An accepted job.  `attempt` is the number that its next attempt will have."""

    request: JobRequest
    label: str
    image: Image
    resources: Resources
    attempt: int = 1

    @property
    def id(self) -> str:
        return self.request.request_id


@dataclass
class Active:
    """An attempt that is not done: it counts against capacity until the host is free of it."""

    job: Job
    id: AttemptId
    since: float
    phase: Phase = Phase.PREPARING
    outcome: Outcome | None = None
    worker: Worker | None = field(default=None, repr=False)
    stopping: Stop | None = None

    def stop(self, stop: Stop) -> None:
        """End this attempt; also right if its worker is not there yet, or is at its end."""
        self.stopping = stop
        if self.worker is not None:
            self.worker.stop(stop)
