"""Which fault is tried at which point, what of it a run tries, and the table that it prints."""

from __future__ import annotations

import datetime
import os
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from solstice.host import racepoints

ALL = "SOLSTICE_TEST_CRASH"
SEED = "SOLSTICE_TEST_SEED"
SAMPLE = 10
# Noop has no image, no steps, nothing to collect, and no cleaning that fails; only a worker of another version says
# what is unknown.
_NOT_ON_NOOP = (
    "images.",
    "worker.step.",
    "worker.collecting.",
    "worker.failed.",
    "supervisor.step.",
    "supervisor.failed.",
    "supervisor.unknown.",
)


class Fault(StrEnum):
    KILL = "SIGKILL"
    STOP = "SIGSTOP"  # for longer than the deadline that notices it, if there is one
    FULL = "ENOSPC"  # of everything in the state directory
    BROKEN = "EIO"  # of the store's files
    CUT = "connection"  # to the broker, lost


@dataclass(frozen=True, slots=True)
class Case:
    point: str
    fault: Fault

    def __str__(self) -> str:
        return f"{self.point}-{self.fault}"


def points() -> list[str]:
    """Every point that is reached on noop."""
    return sorted(point for point in racepoints.POINTS if not point.startswith(_NOT_ON_NOOP))


def seed() -> str:
    """What the sample is drawn by: the day's, or the one of a run that is to be repeated."""
    return os.environ.get(SEED) or datetime.datetime.now(datetime.UTC).date().isoformat()


def cases() -> list[Case]:
    """All of them with `tests/run --crash`; SIGKILL everywhere and a sample of the other faults without."""
    killed = [Case(point, Fault.KILL) for point in points()]
    others = [Case(point, fault) for fault in Fault if fault is not Fault.KILL for point in points()]
    return killed + (others if os.environ.get(ALL) else random.Random(seed()).sample(others, SAMPLE))  # noqa: S311


def table(results: Mapping[Case, bool]) -> list[str]:
    """Point × fault → survived, as lines; what was not tried is left empty."""
    width = max(len(case.point) for case in results)
    lines = ["  ".join([" " * width, *(f"{fault:>10}" for fault in Fault)])]
    for point in _in_order(results):
        cells = [_cell(results.get(Case(point, fault))) for fault in Fault]
        lines.append("  ".join([f"{point:{width}}", *(f"{cell:>10}" for cell in cells)]))
    return [line.rstrip() for line in lines]


def _in_order(results: Iterable[Case]) -> list[str]:
    return sorted({case.point for case in results})


def _cell(survived: bool | None) -> str:
    return {None: "", True: "survived", False: "LOST"}[survived]
