"""What this machine has: CPUs, memory, disk.  The figures are psutil's."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import psutil

_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Machine:
    """`cpus` are those that this process may use; `disk_mib` is the size of one file system, for this user."""

    cpus: int
    memory_mib: int
    disk_mib: int


def look(path: Path) -> Machine:
    """The machine, and the file system that `path` is on."""
    affinity = getattr(os, "sched_getaffinity", None)  # illumos has none
    cpus = len(affinity(0)) if affinity else psutil.cpu_count() or 1
    disk = psutil.disk_usage(str(path))
    return Machine(cpus, psutil.virtual_memory().total // _MIB, (disk.used + disk.free) // _MIB)


def free_disk_mib(path: Path) -> int:
    """What this user may still write on the file system that `path` is on."""
    return int(psutil.disk_usage(str(path)).free // _MIB)
