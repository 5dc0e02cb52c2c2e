"""When a pending job will start, as far as past run times tell.  Pure: the scheduler's own pass, in an imagined future.

An estimate and no promise: it knows neither what will still arrive nor how long this job's steps take.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from solstice.supervisor.capacity import Limits, Usage
from solstice.supervisor.jobs import Job
from solstice.supervisor.turns import Gate, Turns, consider

# With more jobs than that, an estimate is worth less than the time that it takes the supervisor: some 50 ms.
MOST = 200


@dataclass(frozen=True, slots=True)
class Running:
    """A job that runs, and for how many seconds it has."""

    job: Job
    elapsed: float


class Forecast:
    """`durations` are mean seconds by image; an image without a past takes the mean of all."""

    def __init__(
        self, limits: Limits, free_disk_mib: int, gate: Gate, turns: Turns, durations: Mapping[str, float]
    ) -> None:
        self._limits = limits
        self._free_disk_mib = free_disk_mib
        self._gate = gate
        self._turns = turns
        self._durations = durations

    def start_of(self, wanted: Job, pending: Iterable[Job], running: Sequence[Running], now: float) -> float | None:
        """In how many seconds `wanted` starts; None if nothing is known, or if it does not wait for capacity."""
        if not self._durations or self._gate(wanted) is not None:
            return None
        waiting = list(pending)
        if len(waiting) > MOST:
            return None
        ends = [(max(0.0, self._duration(each.job) - each.elapsed), each.job) for each in running]
        at = 0.0
        for _ in range(len(waiting) + len(ends) + 1):
            for job in self._starts(waiting, [job for _, job in ends], now + at):
                if job is wanted:
                    return at
                waiting.remove(job)
                ends.append((at + self._duration(job), job))
            if not ends:
                return None
            at = min(end for end, _ in ends)
            ends = [(end, job) for end, job in ends if end > at]
        return None

    def _starts(self, waiting: Sequence[Job], running: Sequence[Job], now: float) -> list[Job]:
        usage = Usage(self._limits, self._free_disk_mib)
        for job in running:
            usage.add(job.claim, booting=False)
        started = []
        for job, obstacle in consider(waiting, running, usage, self._gate, self._turns, now):
            if obstacle is None:
                started.append(job)
            elif obstacle.is_everybodys:
                break
        return started

    def _duration(self, job: Job) -> float:
        mean_of_all = sum(self._durations.values()) / len(self._durations)
        return self._durations.get(job.image.name, mean_of_all)
