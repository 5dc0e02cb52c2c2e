"""Two clocks, so that no code mixes them: deadlines are monotonic, times that people read are wall-clock."""

from __future__ import annotations

import time


def wall() -> float:
    """Seconds since the epoch, for reports, rows and events; never for a deadline."""
    return time.time()


def deadline(seconds: float) -> float:
    """The monotonic time that is `seconds` from now."""
    return time.monotonic() + seconds


def monotonic_of(at: float) -> float:
    """A past moment of the wall clock as this process's monotonic clock has it; one in the future counts as now."""
    return min(monotonic_at(at), time.monotonic())


def monotonic_at(at: float) -> float:
    """A moment of the wall clock, past or to come, as this process's monotonic clock has it."""
    return time.monotonic() + at - time.time()
