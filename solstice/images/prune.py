"""Which versions of an image may go, and how they go: never the one that is used or to be used, never one in use.

A version's age counts from when another took its place, so what was replaced yesterday can be rolled back to tomorrow.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from solstice.host import clock
from solstice.images import usage
from solstice.images.versions import Shelf, Version

# Whoever read the link a moment ago may not have pinned yet what it named.
SETTLE = 60.0


@dataclass(frozen=True, slots=True)
class Spare:
    """A version that only a rollback would need; `since` is when another took its place, in seconds since the epoch."""

    shelf: Shelf
    version: Version
    since: float

    @property
    def path(self) -> Path:
        return self.shelf.path(self.version)


def spares(shelf: Shelf) -> list[Spare]:
    """The versions that may go if nobody stands on them, the newest first."""
    versions, kept = shelf.versions(), (shelf.current(), shelf.wanted())
    successors = [None, *versions[:-1]]
    return [
        Spare(shelf, version, successor.at if successor is not None else version.at)
        for version, successor in zip(versions, successors, strict=True)
        if not version.is_one_of(*kept)
    ]


def remove(spare: Spare, jobs: Path) -> str | None:
    """Remove the version; why not, if something stands on it.  Raises `InfraError` if its image is locked, `OSError`.

    `jobs` is where the overlays of this host's attempts lie.  Of a refused version the record stays, for a
    refresh must not bring it back when its source has it again.
    """
    shelf, version = spare.shelf, spare.version
    with shelf.locked(), shelf.changing():
        if version.is_one_of(shelf.current(), shelf.wanted()):
            return "it is used"
        if clock.wall() - shelf.changed_at() < SETTLE:
            return "another version has taken its place just now"
        with usage.unused(spare.path) as is_unused:
            # asked with the lock in hand: who comes now waits for it before he makes an overlay
            if not is_unused or spare.path.resolve() in usage.backing_files(jobs):
                return "a virtual machine stands on it"
            spare.path.unlink()
            recorded = shelf.find(version.name)
            if recorded is not None and not recorded.refused:
                shelf.forget(version)
    return None
