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
    return time.monotonic() - max(0.0, time.time() - at)
