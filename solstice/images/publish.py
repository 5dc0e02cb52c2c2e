"""How what was pulled becomes a version: checked, converted if that is wanted, put on disk, recorded, and then named.

`obtain` calls it with the image's lock held.  Until the last rename there is nothing that anybody would use; a process
that was killed before leaves a stage, which the next one begins anew.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from solstice.errors import Cause, InfraError
from solstice.host import clock, files, processes, racepoints
from solstice.images import content
from solstice.images.header import ImageFacts
from solstice.images.inspect import inspect
from solstice.images.pipeline import Origin
from solstice.images.versions import Shelf, Version, name_of
from solstice.model import DiskFormat
from solstice.protocol.urls import mask_url

MODE = 0o444
CONVERT_TIMEOUT = 4 * 3600.0
CONVERT_MEMORY = 2 << 30
_NO_SPACE = "No space left on device"

Watch = Callable[[int, int | None], None]


@contextlib.contextmanager
def staged(shelf: Shelf) -> Iterator[int]:
    """The descriptor of a new, empty stage, which is gone afterwards, by its name or because it has got another.

    Made anew, and never through a link, because what is there may have been left by anybody.
    """
    shelf.stage.unlink(missing_ok=True)
    descriptor = os.open(shelf.stage, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
        shelf.stage.unlink(missing_ok=True)
        _converted(shelf).unlink(missing_ok=True)


def publish(shelf: Shelf, source: Path, origin: Origin, watch: Watch) -> Version:
    """Make a version of the file at `source`, which the stage is, or for a mere conversion another version.

    Raises `InfraError` (infra.image) if it is no image that may be used, and infra.disk_full if it cannot be converted
    for that; `OSError`.
    """

    def look_around() -> None:
        watch(origin.size, origin.size)  # what has come has come: to the watcher the rest is a part of it

    file, facts, converted = _prepared(shelf, source, inspect(source), look_around)
    _settle(file)
    racepoints.reach("images.settle.after")
    now = clock.wall()
    version = Version(
        name=name_of(origin, converted),
        origin=origin,
        source=mask_url(shelf.image.source),
        sha512=shelf.image.sha512,
        checksum_url=mask_url(shelf.image.checksum_url),
        format=facts.format,
        virtual_size=facts.virtual_size,
        content=content.digest(file, lambda _at, _size: look_around()),
        at=now,
        checked=now,
    )
    with shelf.changing():
        shelf.record(version)
        racepoints.reach("images.record.after")
        file.rename(shelf.path(version))
        files.sync(shelf.directory)
    racepoints.reach("images.rename.after")
    return version


def _prepared(
    shelf: Shelf, source: Path, facts: ImageFacts, look_around: Callable[[], None]
) -> tuple[Path, ImageFacts, DiskFormat | None]:
    """The file in the format that the map wants, what it is, and that format if it had another."""
    wanted = shelf.image.prepare
    if wanted in (None, facts.format):
        return source, facts, None
    limit = shelf.image.max_size
    if facts.virtual_size > limit:
        why = f"the image is a disk of {facts.virtual_size} bytes, and {limit} are allowed where it is converted"
        raise InfraError(Cause.IMAGE, why, "check `source`, or raise `max_size` in the image map")
    target = _converted(shelf)
    target.unlink(missing_ok=True)
    argv = ["qemu-img", "convert", "-f", facts.format.value, "-O", wanted.value, source.absolute(), target.absolute()]
    try:
        processes.run(argv, timeout=CONVERT_TIMEOUT, cause=Cause.IMAGE, memory=CONVERT_MEMORY, watch=look_around)
    except InfraError as error:
        if _NO_SPACE in error.why:
            raise InfraError(Cause.DISK_FULL, error.why) from None
        raise
    racepoints.reach("images.convert.after")
    return target, inspect(target, wanted), wanted


def _converted(shelf: Shelf) -> Path:
    return shelf.directory / ".converted"


def _settle(file: Path) -> None:
    """Put it on disk, read-only."""
    descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fchmod(descriptor, MODE)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
