"""A disk that fails on command: a small library that every process of the whole preloads, and the file that orders it.

Needs a C compiler.  Whoever makes a `Disk` has its folder removed.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from solstice.host import racepoints

_SOURCE = Path(__file__).with_name("disk.c")


class Disk:
    """`folder` is the one of the race points; what `environment` says belongs to the supervisor's."""

    def __init__(self, folder: Path) -> None:
        self._order = folder / "disk"
        library = folder / "disk.so"
        argv = ["cc", "-Wall", "-Wextra", "-Werror", "-O2", "-fPIC", "-shared", "-o", str(library), str(_SOURCE)]
        subprocess.run(argv, check=True, timeout=60)
        self.environment = {racepoints.VARIABLE: str(folder), "LD_PRELOAD": str(library)}

    def fail(self, number: int, part: str) -> None:
        """From now on each write of a file whose path has `part` in it fails with this errno."""
        draft = self._order.with_suffix(".draft")
        draft.write_text(f"{number} {part}\n")
        draft.rename(self._order)

    def heal(self) -> None:
        self._order.unlink()
