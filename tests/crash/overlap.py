"""Two attempts of one job must never run at once: a watch over the files that noop has for VMs."""

from __future__ import annotations

import threading
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

from solstice.model import AttemptId

# Shorter than any VM of these tests runs beside another one.
_EVERY = 0.01


class Overlaps:
    """Looks at `folder` again and again, from a thread of its own, until `close`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._found: set[tuple[str, ...]] = set()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="overlaps")
        self._thread.start()

    def look(self) -> None:
        """Raises `AssertionError` with the attempts that ran at once so far."""
        assert not self._found, f"these attempts of one job ran at once: {sorted(self._found)}"

    def close(self) -> None:
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._end.wait(_EVERY):
            running = defaultdict(list)
            with suppress(FileNotFoundError):
                for path in self._folder.iterdir():
                    id = AttemptId.parse(path.name)
                    if id is not None and _runs(path):
                        running[id.job].append(path.name)
            self._found.update(tuple(sorted(names)) for names in running.values() if len(names) > 1)


def _runs(path: Path) -> bool:
    with suppress(OSError):
        return path.read_text() == "running"
    return False
