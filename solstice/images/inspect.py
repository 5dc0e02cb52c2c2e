"""What an image file is, by our own check of its header and then by qemu-img, which must agree.

`obtain` calls it for a download before that is published, and for every file that is already in place.
"""

from __future__ import annotations

import json
from pathlib import Path

from solstice.errors import Cause, InfraError
from solstice.host import processes
from solstice.images import header
from solstice.images.header import ImageFacts
from solstice.model import DiskFormat

QEMU_IMG_TIMEOUT = 30.0
QEMU_IMG_MEMORY = 1 << 30


def inspect(path: Path, expected: DiskFormat | None = None) -> ImageFacts:
    """The facts of the image at `path`, which must be of the format that is `expected`, if one is.

    Raises `InfraError` if it must not be used, `OSError` if it cannot be read.
    """
    # Looked at before it is opened: opening a FIFO would wait for a writer for ever.
    if path.exists() and not path.is_file():
        raise InfraError(Cause.IMAGE, f"{path}: it is not a regular file")
    with path.open("rb") as file:
        claimed = header.check(file.read(header.HEAD), path.stat().st_size, expected)
    return _confirm(path.absolute(), claimed)


def _confirm(path: Path, claimed: ImageFacts) -> ImageFacts:
    # The format is given, so that qemu-img does not guess another than we checked.  Shared by force: on NFS our own
    # lock on the stage file would count as a writer's.
    argv = ["qemu-img", "info", "--force-share", "--output=json", "-f", claimed.format.value, path]
    said = json.loads(processes.run(argv, timeout=QEMU_IMG_TIMEOUT, cause=Cause.IMAGE, memory=QEMU_IMG_MEMORY).stdout)
    specific = said.get("format-specific", {}).get("data", {})
    if said["format"] != claimed.format.value or said.get("backing-filename") or specific.get("data-file"):
        raise InfraError(Cause.IMAGE, f"{path}: qemu-img reads it as another image than its header says")
    return ImageFacts(claimed.format, said["virtual-size"])
