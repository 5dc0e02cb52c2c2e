"""How an image comes to be ready: what is there is used, what is not is pulled, published, and pointed at.

The images child calls it, and the command line does.  Each call leaves the old version or the new one, and takes up
what a killed one had begun.  Retrying is the caller's, and so is the boot test of a new version: `verdict` takes its
result.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from solstice.errors import Cause, InfraError, os_failure
from solstice.host import clock, racepoints
from solstice.images import content, pipeline
from solstice.images.inspect import inspect
from solstice.images.pipeline import Origin
from solstice.images.publish import Watch, publish, staged
from solstice.images.versions import NOT_OURS, REMOVE_IT, Busy, Shelf, Version
from solstice.model import DiskFormat, Image

FORWARD = "`solstice images refresh --again` takes it all the same"


@dataclass(frozen=True, slots=True)
class Usable:
    """A file that a VM can stand on, with the digest that its results bear."""

    path: Path
    format: DiskFormat
    virtual_size: int
    digest: str


@dataclass(frozen=True, slots=True)
class Found:
    """`ready` may be used now; `candidate` once it has booted.  At least one of them is there.

    `look_at` is when to ask the source again, in seconds since the epoch; None for never.
    """

    ready: Usable | None
    candidate: Usable | None = None
    look_at: float | None = None


def obtain(image: Image, watch: Watch, *, refresh: bool = False, again: bool = False) -> Found:
    """Make the image ready, and with `refresh` ask its source for a newer version, with `again` also for a refused one.

    Raises `InfraError` (infra.image, infra.disk_full) and what `watch` raises; what was ready stays so.
    """
    shelf = Shelf(image)
    with _told(image):
        if shelf.is_operators():
            if refresh:
                raise InfraError(Cause.IMAGE, f"{image.local_path}: {NOT_OURS}", REMOVE_IT)
            return Found(_operators(image, watch))
        if refresh or _is_unsettled(shelf):
            try:
                _settle(shelf, watch, refresh, again)
            except Busy:
                if refresh or shelf.usable() is None:
                    raise
        return _found(shelf)


def verdict(image: Image, path: Path, ok: bool, why: str) -> Found:
    """The boot test of the version at `path` is over.  Raises `InfraError`: also if no version is left then."""
    shelf = Shelf(image)
    with _told(image), shelf.changing():
        version = shelf.find(path.name)
        if version is not None and not version.refused:
            shelf.record(replace(version, tested=ok, refused="" if ok else f"it did not pass its boot test: {why}"))
        _go_live(shelf)
        return _found(shelf)


def rollback(image: Image, why: str) -> Version:
    """Use the version before the current one, and refuse that from now on.  Raises `InfraError` if there is none."""
    shelf = Shelf(image)
    with _told(image):
        if shelf.is_operators():
            raise InfraError(Cause.IMAGE, f"{image.local_path}: {NOT_OURS}", REMOVE_IT)
        with shelf.changing():
            current = shelf.current()
            others = [version for version in shelf.versions() if version.live and not version.refused]
            before = next((each for each in others if current is None or each.at < current.at), None)
            if before is None:
                raise InfraError(
                    Cause.IMAGE, f"{image.name}: there is no earlier version", "see `solstice images list`"
                )
            if image.sha256 or image.sha512:
                why_not = f"{image.name}: the image map says by its digest which version it is to be"
                raise InfraError(Cause.IMAGE, why_not, "give the digest of the other version there")
            inspect(shelf.path(before), before.format)
            for version in shelf.versions():
                if version.at > before.at and not version.refused:
                    shelf.refuse(version, why)
            shelf.point(before)
            return before


def _settle(shelf: Shelf, watch: Watch, refresh: bool, again: bool) -> None:
    with shelf.locked():
        if again:
            with shelf.changing():
                _forgive(shelf)
        if refresh or shelf.known() is None:
            _look(shelf, watch)
        with shelf.changing():
            _go_live(shelf)


def _is_unsettled(shelf: Shelf) -> bool:
    """Whether something is to be done although nobody asked for a newer version."""
    usable, wanted = shelf.usable(), shelf.wanted()
    return usable is None or (wanted is not None and not wanted.is_one_of(usable) and not _needs_test(shelf, wanted))


def _look(shelf: Shelf, watch: Watch) -> None:
    """Ask the source, and publish what it has if that is new."""
    try:
        with staged(shelf) as output:
            twin = _other_format(shelf)
            if twin is not None:
                publish(shelf, shelf.path(twin), twin.origin, watch)
            else:
                _take(shelf, _pulled(shelf, output, watch), watch)
    except OSError as error:
        if os_failure(error, Cause.IMAGE).cause is Cause.DISK_FULL:
            pipeline.drop(shelf.part)  # others need the room more
        raise
    racepoints.reach("images.drop.before")
    pipeline.drop(shelf.part)


def _pulled(shelf: Shelf, output: int, watch: Watch) -> Origin | None:
    """What the stage was filled from; None if the source has what we know."""
    known = shelf.known()
    racepoints.reach("images.pull.before")
    origin = pipeline.pull(shelf.image, shelf.part, output, watch, known.origin if known else None)
    racepoints.reach("images.pull.after")
    return origin


def _take(shelf: Shelf, origin: Origin | None, watch: Watch) -> None:
    if origin is None:
        _note_unchanged(shelf)
        return
    if _is_known(shelf, origin):
        return
    refused = next((each.refused for each in shelf.recorded() if each.refused and each.digest == origin.digest), "")
    try:
        version = publish(shelf, shelf.stage, origin, watch)
    except InfraError:
        pipeline.drop(shelf.part)  # what the source sent is no image: to read it again would not help
        raise
    if refused:
        with shelf.changing():
            shelf.refuse(version, refused)  # its source has it again, or it was converted anew


def _note_unchanged(shelf: Shelf) -> None:
    with shelf.changing():
        known = shelf.known()
        if known is not None:
            shelf.record(replace(known, checked=clock.wall()))


def _is_known(shelf: Shelf, origin: Origin) -> bool:
    """Whether this is a version that is there, or was refused; what is recorded of it is brought up to date."""
    now = clock.wall()
    with shelf.changing():
        known = shelf.known()
        if known is not None and origin.digest == known.digest:
            shelf.record(replace(known, origin=origin, checked=now))
            return True
        back = _same(shelf, origin)
        if back is not None:
            # the source has gone back to what it had before
            shelf.record(replace(back, origin=origin, at=now, checked=now))
        return back is not None


def _other_format(shelf: Shelf) -> Version | None:
    """The version to be used, but for its format: the map's `prepare` has changed since it came."""
    wanted = shelf.image.prepare
    if wanted is None or shelf.known() is not None:
        return None
    as_they_are = Shelf(replace(shelf.image, prepare=None))
    return as_they_are.wanted()


def _same(shelf: Shelf, origin: Origin) -> Version | None:
    """A version that came from this source with this digest before."""
    return next(
        (version for version in shelf.versions() if version.digest == origin.digest and version.is_of(shelf.image)),
        None,
    )


def _forgive(shelf: Shelf) -> None:
    for version in shelf.recorded():
        if version.refused:
            shelf.record(replace(version, refused=""))


def _needs_test(shelf: Shelf, version: Version) -> bool:
    """What is in use needs none: its jobs show what it is worth."""
    return shelf.image.boot_test and not version.tested and not version.is_one_of(shelf.current())


def _go_live(shelf: Shelf) -> None:
    """Point at the version that is to be used, if it may be."""
    wanted = shelf.wanted()
    if wanted is not None and not wanted.is_one_of(shelf.current()) and not _needs_test(shelf, wanted):
        inspect(shelf.path(wanted), wanted.format)
        shelf.point(wanted)


def _found(shelf: Shelf) -> Found:
    usable, wanted, known = shelf.usable(), shelf.wanted(), shelf.known()
    ready = _usable(shelf, usable) if usable is not None else None
    is_candidate = wanted is not None and not wanted.is_one_of(usable) and _needs_test(shelf, wanted)
    candidate = _usable(shelf, wanted) if wanted is not None and is_candidate else None
    if ready is None and candidate is None:
        why = known.refused if known is not None and known.refused else "it is gone again"
        raise InfraError(Cause.IMAGE, f"{shelf.image.name}: the version that its source has is refused: {why}", FORWARD)
    return Found(ready, candidate, _look_at(shelf, known))


def _look_at(shelf: Shelf, known: Version | None) -> float | None:
    """When to ask the source again.  A look that was killed has left its part, and is begun again now."""
    if shelf.part.exists():
        return 0.0
    refresh = shelf.image.refresh
    return known.checked + refresh if refresh and known is not None else None


def _usable(shelf: Shelf, version: Version) -> Usable:
    path = shelf.path(version)
    facts = inspect(path, version.format)
    return Usable(path, facts.format, facts.virtual_size, version.digest)


def _operators(image: Image, watch: Watch) -> Usable:
    """What the operator has put there, which has no source whose digest we could know."""
    facts = inspect(image.local_path)
    return Usable(image.local_path, facts.format, facts.virtual_size, content.digest(image.local_path, watch))


@contextlib.contextmanager
def _told(image: Image) -> Iterator[None]:
    """An operating system's error in words."""
    try:
        yield
    except OSError as error:
        failure = os_failure(error, Cause.IMAGE)
        raise InfraError(failure.cause, f"{error.filename or image.local_path}: {error.strerror}") from None
