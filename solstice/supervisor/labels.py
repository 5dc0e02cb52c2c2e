"""Which images may start VMs at all: what an operator paused, and what failed too often.  Pure; `now` is monotonic.

An image of which `THRESHOLD` attempts in a row failed by this host's fault is put into quarantine: for 10 s, doubling
to 1 h.  Then one job of it is let through to find out, and the others wait for how that ends.  A broken image or
network so costs a few jobs and not the queue.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from solstice.errors import Cause, Side
from solstice.model import Outcome

THRESHOLD = 3
FIRST_DELAY = 10.0
MAX_DELAY = 3600.0

# These say nothing about the image: the host was stopped, or the operator wanted it.
_NEUTRAL = (Cause.HOST_STOPPING, Cause.HOST_LOST, Cause.CANCELLED)


@dataclass
class _Record:
    failures: int = 0
    delay: float = 0.0
    until: float = 0.0
    why: str = ""
    probe: str = ""
    """The job that was let through to find out."""


class Labels:
    """By image name: an alias shares the fate of what it resolves to."""

    def __init__(self, paused: Iterable[str] = ()) -> None:
        self.paused = set(paused)
        self.all_paused = False
        self._records: dict[str, _Record] = {}

    def is_paused(self, image: str) -> bool:
        return self.all_paused or image in self.paused

    def obstacle(self, image: str, now: float) -> str | None:
        """Why no VM of this image may start; None if one may."""
        if self.all_paused:
            return "this host is paused (solstice resume)"
        if image in self.paused:
            return f"{image} is paused (solstice resume {image})"
        record = self._records.get(image)
        if record is None or not record.delay:
            return None
        if now < record.until:
            return f"{self.quarantine(image)}; the next try is in {record.until - now:.0f} s"
        if record.probe:
            return f"{self.quarantine(image)}; job {record.probe[:8]} is the next try"
        return None

    def quarantine(self, image: str) -> str | None:
        """Why an image is in quarantine, None if it is not."""
        record = self._records.get(image)
        if record is None or not record.delay:
            return None
        return f"{image} is in quarantine, {record.failures} attempts in a row failed by this host: {record.why}"

    def started(self, image: str, job: str) -> None:
        """A job of this image starts."""
        record = self._records.get(image)
        if record is not None and record.delay:
            record.probe = job

    def ended(self, image: str, job: str, outcome: Outcome | None, now: float) -> None:
        """An attempt of this image has ended; without an outcome it was lost by a fault of ours."""
        record = self._records.setdefault(image, _Record())
        is_probe = record.probe == job
        if is_probe:
            record.probe = ""
        if outcome is None or outcome.cause in _NEUTRAL:
            return
        if outcome.cause is None or outcome.cause.side is not Side.INFRA:
            del self._records[image]
            return
        record.failures += 1
        record.why = outcome.detail or outcome.cause.sentence
        # Others that began before the quarantine and fail in it say nothing new.
        if record.failures >= THRESHOLD and (is_probe or not record.delay):
            record.delay = min(record.delay * 2 or FIRST_DELAY, MAX_DELAY)
            record.until = now + record.delay

    def resume(self, image: str) -> None:
        """The operator says that it is well: neither paused nor in quarantine."""
        self.paused.discard(image)
        self._records.pop(image, None)

    def next_change(self, now: float) -> float | None:
        """When the next quarantine lets a job through; None if none will."""
        times = [record.until for record in self._records.values() if record.delay and record.until > now]
        return min(times, default=None)
