"""The versions of one image on disk, and which of them is used.

With `local_path` DIR/BASE.img and the image's name N:

    DIR/BASE.img                    a link to the version that is used; or a file of the operator's, which is not ours
    DIR/versions/N/DIGEST           a version: read-only, named by the SHA-256 of what the source sent
    DIR/versions/N/DIGEST-qcow2     the same after `prepare: qcow2` has converted it
    DIR/versions/N/DIGEST.json      what is recorded of it; written before the file gets its name, and after that only
                                    to say that it was tested or refused, or that the source still has it
    DIR/versions/N/.lock            locked by whoever pulls or prunes, on whichever host (flock, also over NFS)
    DIR/versions/N/.change          locked for the moment in which records, names or the link change, so that a rollback
                                    need not wait for a pull
    DIR/versions/N/.part, .stage    what is on its way: the pipeline's compressed bytes, and the disk that they become

The version to be used is the newest of the map's source that nobody has refused; everything else follows from that
rule, so a process that was killed anywhere is followed by one that only looks at what there is.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from solstice.errors import Cause, InfraError, InternalError
from solstice.host import files, racepoints
from solstice.images.pipeline import Origin
from solstice.model import DiskFormat, Image
from solstice.protocol.codec import from_plain, to_plain
from solstice.protocol.urls import mask_url

VERSIONS = "versions"
CHANGE_SECONDS = 10.0


class Busy(InfraError):
    """Another process changes the versions of this image, on this host or on another one."""


@dataclass(frozen=True, slots=True)
class Version:
    """What is recorded of a version.  Times are in seconds since the epoch, sizes in bytes.

    `content` is the digest of the file as it was published (`content.digest`); `sha512` is what it was checked
    against, if it was; `at` is when the source last changed to it, and `checked` when it was last seen to have it.
    It was checked against what `checksum_url` had, if that was in the map.  What was `live` was in use once.
    """

    name: str
    origin: Origin
    source: str
    sha512: str
    format: DiskFormat
    virtual_size: int
    content: str
    at: float
    checked: float
    checksum_url: str = ""
    tested: bool = False
    live: bool = False
    refused: str = ""

    @property
    def digest(self) -> str:
        return self.origin.digest

    def is_one_of(self, *others: Version | None) -> bool:
        """Whether it is the same version as one of these; its record may have been written anew meanwhile."""
        return self.name in [other.name for other in others if other is not None]

    def is_of(self, image: Image) -> bool:
        """Whether it is what the image map says now."""
        return (
            self.source == mask_url(image.source)
            and image.sha256 in ("", self.digest.partition(":")[2])
            and image.sha512 in ("", self.sha512)
            and image.checksum_url in ("", self.checksum_url)
            and image.prepare in (None, self.format)
        )


def name_of(origin: Origin, converted: DiskFormat | None) -> str:
    """What the file of a version is called; `converted` is the format that it was converted to, if it was."""
    digits = origin.digest.partition(":")[2]
    return digits if converted is None else f"{digits}-{converted}"


class Shelf:
    """The versions of one image.  Reading needs no lock; every change is made inside `locked`."""

    def __init__(self, image: Image) -> None:
        self.image = image
        self.link = image.local_path
        self.directory = image.local_path.parent / VERSIONS / image.name
        self.part = self.directory / ".part"
        self.stage = self.directory / ".stage"

    def path(self, version: Version) -> Path:
        return self.directory / version.name

    def exists(self, version: Version) -> bool:
        return self.path(version).is_file()

    def is_operators(self) -> bool:
        """Something stands at `local_path` that is no link of ours, under this image's name or another."""
        return os.path.lexists(self.link) and self._target().parts[:1] != (VERSIONS,)

    def current(self) -> Version | None:
        """The version that `local_path` names; None if there is none, or it is gone."""
        name = self._linked()
        return self.find(name) if name is not None and (self.directory / name).is_file() else None

    def find(self, name: str) -> Version | None:
        """What is recorded under this name, also if its file is gone."""
        try:
            return from_plain(Version, json.loads((self.directory / f"{name}.json").read_bytes()))
        except (FileNotFoundError, ValueError, InternalError):
            return None

    def recorded(self) -> list[Version]:
        """Everything that is recorded, the newest first; of a refused version the file may be gone."""
        found = (self.find(path.stem) for path in self.directory.glob("[!.]*.json"))
        return sorted((version for version in found if version), key=lambda version: version.at, reverse=True)

    def versions(self) -> list[Version]:
        """Every version whose file is there, the newest first."""
        return [version for version in self.recorded() if self.exists(version)]

    def known(self) -> Version | None:
        """The newest that came from the map's source, refused or not."""
        fitting = (version for version in self.recorded() if version.is_of(self.image))
        return next((version for version in fitting if version.refused or self.exists(version)), None)

    def wanted(self) -> Version | None:
        """The newest of the map's source that nobody refused: the one to be used."""
        return next((version for version in self.versions() if not version.refused and version.is_of(self.image)), None)

    def usable(self) -> Version | None:
        """The version that may be used now: the current one, if the map still means it.

        After a rollback it is used although the map means another, for that one was refused.
        """
        current, known = self.current(), self.known()
        if current is None or current.refused:
            return None
        return current if current.is_of(self.image) or (known is not None and known.refused) else None

    def locked(self) -> contextlib.AbstractContextManager[None]:
        """Be the only one who pulls or prunes here.  Raises `Busy` if somebody else does, `OSError`."""
        return self._locked(".lock", 0.0)

    def changing(self) -> contextlib.AbstractContextManager[None]:
        """Be the only one who changes records, names or the link, for a moment.  Raises `Busy`, `OSError`."""
        return self._locked(".change", CHANGE_SECONDS)

    @contextlib.contextmanager
    def _locked(self, name: str, patience: float) -> Iterator[None]:
        files.make_passable(self.directory)  # QEMU's user must come to the file
        descriptor = os.open(self.directory / name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            if not files.lock(descriptor, fcntl.LOCK_EX, time.monotonic() + patience):
                why = f"{self.directory}: another process is writing this image"
                raise Busy(Cause.IMAGE, why, "try again when it is done; `solstice images list` shows what there is")
            yield
        finally:
            os.close(descriptor)

    def record(self, version: Version) -> None:
        files.replace(self.directory / f"{version.name}.json", json.dumps(to_plain(version), indent=2) + "\n")

    def point(self, version: Version) -> None:
        """Use this version from now on.  Raises `InfraError` if the operator has put something at `local_path`."""
        if self.is_operators():
            raise InfraError(Cause.IMAGE, f"{self.link}: {NOT_OURS}", REMOVE_IT)
        staged = self.link.with_name(f".{self.link.name}.link")
        staged.unlink(missing_ok=True)
        staged.symlink_to(Path(VERSIONS, self.image.name, version.name))
        self.record(replace(version, live=True))
        racepoints.reach("images.link.before")
        staged.rename(self.link)
        files.sync(self.link.parent)
        racepoints.reach("images.link.after")

    def refuse(self, version: Version, why: str) -> None:
        """Never use this version again, unless an operator says so."""
        self.record(replace(version, refused=why))

    def forget(self, version: Version) -> None:
        (self.directory / f"{version.name}.json").unlink(missing_ok=True)

    def changed_at(self) -> float:
        """When the link was made, in seconds since the epoch; 0 if there is none."""
        try:
            return self.link.lstat().st_mtime
        except FileNotFoundError:
            return 0.0

    def _target(self) -> Path:
        """What the link at `local_path` says; the empty path if there is none."""
        try:
            return self.link.readlink()
        except OSError:  # it is not there, or is no link
            return Path()

    def _linked(self) -> str | None:
        """The name of the version that `local_path` names, whether it is there or not; None if it names none."""
        target = self._target()
        return target.name if target.parent == Path(VERSIONS, self.image.name) else None


NOT_OURS = "it is a file that an operator put there, and is never overwritten"
REMOVE_IT = "move it away to have the image fetched from its `source`"
