"""Whose turn it is.  Pure: pending jobs, what is taken, and `now` in; one decision after the other out.

The order is priority, then fair share between repositories, then age.  Each half hour of waiting counts as one level
of priority, so that nothing waits for ever behind what is more urgent.  Fair share means: the repository with the
fewest VMs first, and of those with as many the one whose last start is longest ago.

A job that has to wait never blocks one behind it that need not.  The price is that small jobs may keep a large one
from ever finding enough memory; so one that was overtaken for `RESERVE_AFTER` seconds has what it needs reserved, and
whoever comes behind it must leave that free.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from solstice.supervisor.capacity import Obstacle, Usage
from solstice.supervisor.jobs import Job

AGING = 1800.0
RESERVE_AFTER = 300.0

Gate = Callable[[Job], Obstacle | None]
_Queue = tuple[int, str]
_Rank = tuple[int, int, float, float]


@dataclass
class Turns:
    """What has to be remembered from one pass to the next; times are monotonic seconds."""

    last_start: dict[str, float] = field(default_factory=dict)
    """By repository, of those that have something here."""
    overtaken: dict[str, float] = field(default_factory=dict)
    """By pending job: when the first that came behind it started before it."""

    def copy(self) -> Turns:
        return Turns(dict(self.last_start), dict(self.overtaken))

    def forget(self, repositories: Iterable[str], jobs: Iterable[str]) -> None:
        """Keep nothing but of these."""
        known, pending = set(repositories), set(jobs)
        self.last_start = {name: at for name, at in self.last_start.items() if name in known}
        self.overtaken = {job: at for job, at in self.overtaken.items() if job in pending}


def consider(
    pending: Iterable[Job], running: Iterable[Job], usage: Usage, gate: Gate, turns: Turns, now: float
) -> Iterator[tuple[Job, Obstacle | None]]:
    """Every pending job in its turn, with what keeps it from starting, or None: then the caller starts it at once.

    `running` are the jobs that `usage` counts.  `gate` says what, capacity apart, keeps a job; it is asked again for
    each, after the caller has started those before it.  `usage` and `turns` are kept up to date.
    """
    order = _Order(pending, running, turns, now)
    waiting: list[Job] = []
    for job in order:
        obstacle = gate(job) or usage.obstacle(job.claim)
        if obstacle is None:
            usage.add(job.claim, booting=True)
            order.started(job)
            turns.overtaken.pop(job.id, None)
            for overtaken in waiting:
                turns.overtaken.setdefault(overtaken.id, now)
        elif obstacle.depends_on_size:
            waiting.append(job)
            if now - turns.overtaken.get(job.id, now) >= RESERVE_AFTER and usage.could_fit(job.claim):
                usage.reserve(job.claim, job.id)
        yield job, obstacle


def level(job: Job, now: float) -> int:
    """The priority that a job has by now."""
    return job.request.priority + int((now - job.since) // AGING)


class _Order:
    """The pending jobs, each once; a repository is moved back by each job of it that starts meanwhile."""

    def __init__(self, pending: Iterable[Job], running: Iterable[Job], turns: Turns, now: float) -> None:
        self._last_start = turns.last_start
        self._now = now
        self._busy = Counter(job.request.repo_url for job in running)
        self._queues: dict[_Queue, deque[Job]] = {}
        for job in sorted(pending, key=lambda job: job.since):
            self._queues.setdefault((-level(job, now), job.request.repo_url), deque()).append(job)

    def __iter__(self) -> Iterator[Job]:
        heap = [self._ranked(queue) for queue in self._queues]
        heapq.heapify(heap)
        while heap:
            rank, queue = heapq.heappop(heap)
            if (rank, queue) != self._ranked(queue):  # moved back by a job of another level
                heapq.heappush(heap, self._ranked(queue))
                continue
            yield self._queues[queue].popleft()
            if self._queues[queue]:
                heapq.heappush(heap, self._ranked(queue))

    def started(self, job: Job) -> None:
        self._busy[job.request.repo_url] += 1
        self._last_start[job.request.repo_url] = self._now

    def _ranked(self, queue: _Queue) -> tuple[_Rank, _Queue]:
        urgency, repository = queue
        last = self._last_start.get(repository, float("-inf"))
        return (urgency, self._busy[repository], last, self._queues[queue][0].since), queue
