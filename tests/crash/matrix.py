"""Which fault is tried at which point of which whole, what of it a run tries, and the tables that it prints."""

from __future__ import annotations

import datetime
import os
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from solstice.host import racepoints

ALL = "SOLSTICE_TEST_CRASH"
SEED = "SOLSTICE_TEST_SEED"
SAMPLE = 10
# Noop has no image, no steps and nothing to collect; what only another version's worker says, every worker here knows.
_NEVER_ON_NOOP = ("images.", "worker.step.", "worker.collecting.", "supervisor.step.", "supervisor.unknown.")
_ON_LIBVIRT = ("worker.", "cleaner.", "supervisor.step.")


class Kind(StrEnum):
    """A whole: what runs its VMs and what keeps its database."""

    SQLITE = "noop-sqlite"
    POSTGRESQL = "noop-postgresql"
    LIBVIRT = "libvirt-sqlite"


HEADINGS = {
    Kind.SQLITE: "noop, SQLite; EIO: writes of the database's files fail",
    Kind.POSTGRESQL: "noop, PostgreSQL; EIO: its server, which preloads nothing of ours, is killed for as long",
    Kind.LIBVIRT: "libvirt, SQLite; each attempt a VM; what noop does not have, and all of workers and cleaners",
}


class Fault(StrEnum):
    KILL = "SIGKILL"
    STOP = "SIGSTOP"  # for longer than the deadline that notices it, if there is one
    FULL = "ENOSPC"  # of everything in the state directory
    BROKEN = "EIO"  # of the database
    CUT = "connection"  # to the broker, lost


@dataclass(frozen=True, slots=True)
class Case:
    kind: Kind
    point: str
    fault: Fault

    def __str__(self) -> str:
        return f"{self.kind}-{self.point}-{self.fault}"


def points(kind: Kind) -> list[str]:
    """Every point that is tried on such a whole."""
    if kind is Kind.LIBVIRT:
        return sorted(point for point in racepoints.POINTS if point.startswith(_ON_LIBVIRT))
    return sorted(point for point in racepoints.POINTS if not point.startswith(_NEVER_ON_NOOP))


def seed() -> str:
    """What the sample is drawn by: the day's, or the one of a run that is to be repeated."""
    return os.environ.get(SEED) or datetime.datetime.now(datetime.UTC).date().isoformat()


def cases() -> list[Case]:
    """All of them with `tests/run --crash`; else on noop and SQLite SIGKILL everywhere and a sample of the others."""
    if os.environ.get(ALL):
        return [Case(kind, point, fault) for kind in Kind for fault in Fault for point in points(kind)]
    killed = [Case(Kind.SQLITE, point, Fault.KILL) for point in points(Kind.SQLITE)]
    others = [Case(Kind.SQLITE, case.point, fault) for fault in Fault if fault is not Fault.KILL for case in killed]
    return killed + random.Random(seed()).sample(others, SAMPLE)  # noqa: S311


def tables(results: Mapping[Case, bool]) -> Iterator[str]:
    """For each kind a heading and point × fault → survived, as lines; what was not tried is left empty."""
    width = max(len(case.point) for case in results)
    for kind, heading in HEADINGS.items():
        tried = sorted({case.point for case in results if case.kind is kind})
        if tried:
            yield heading
            yield "  ".join([" " * width, *(f"{fault:>10}" for fault in Fault)])
        for point in tried:
            cells = [_cell(results.get(Case(kind, point, fault))) for fault in Fault]
            yield "  ".join([f"{point:{width}}", *(f"{cell:>10}" for cell in cells)]).rstrip()


def _cell(survived: bool | None) -> str:
    return {None: "", True: "survived", False: "LOST"}[survived]
