"""What the first bytes of an image say: pure, the check that stands before any other program sees the file.

A qcow2 can name other files of the host as its backing or data file, and whoever opens it opens those: a download must
not choose what a guest reads.  So such an image is refused here, by our own reading of the header (QEMU's
docs/interop/qcow2.txt), and only then given to qemu-img (`inspect`).
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass

from solstice.errors import Cause, InfraError
from solstice.model import DiskFormat

HEAD = 512  # bytes of a file that `check` wants to see
BACKING_HEAD = 64 << 10  # bytes of an overlay that `backing_of` wants to see: its first cluster

# magic, version, backing file offset and size, cluster bits, virtual size, encryption method
_QCOW2 = struct.Struct(">4sIQIIQI")
_INCOMPATIBLE = struct.Struct(">Q")
_INCOMPATIBLE_AT = 72
_EXTERNAL_DATA_FILE = 1 << 2
_QCOW2_MAGIC = b"QFI\xfb"

_FOREIGN = {
    b"\x28\xb5\x2f\xfd": ("it is compressed with zstd", "set `decompress: zstd` in the image map"),
    b"\x1f\x8b": ("it is compressed with gzip", "set `decompress: gzip` in the image map"),
    b"\xfd7zXZ\0": ("it is compressed with xz", "set `decompress: xz` in the image map"),
    b"BZh": ("it is compressed with bzip2", "set `decompress: bzip2` in the image map"),
    b"KDMV": ("it is a VMDK image", "convert it with qemu-img to qcow2 or raw"),
    b"vhdxfile": ("it is a VHDX image", "convert it with qemu-img to qcow2 or raw"),
    b"<!DOCTYPE": ("it is a web page", "give `source` the address of the image itself"),
    b"<html": ("it is a web page", "give `source` the address of the image itself"),
}


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What an image is; `virtual_size` is the disk's size in bytes."""

    format: DiskFormat
    virtual_size: int


def check(head: bytes, size: int, expected: DiskFormat | None = None) -> ImageFacts:
    """What the image with these first `HEAD` bytes, of `size` bytes in all, claims to be.

    Raises `InfraError` (infra.image) for one that is not to be used, or is not of the format that is `expected`.
    """
    facts = _claimed(head, size)
    if expected is not None and facts.format is not expected:
        # A raw disk on which somebody wrote a qcow2 header is the dangerous one: probed, it could name any file.
        is_qcow2 = facts.format is DiskFormat.QCOW2
        why = "it begins with a qcow2 header" if is_qcow2 else "it has no qcow2 header"
        raise _refused(f"{why} where a {expected} disk is expected", "see what the source really sends")
    return facts


def backing_of(head: bytes) -> str | None:
    """The backing file that a qcow2 names in its first `BACKING_HEAD` bytes; None if it names none, or is no qcow2."""
    if not head.startswith(_QCOW2_MAGIC) or len(head) < _QCOW2.size:
        return None
    at, length = _QCOW2.unpack_from(head)[2:4]
    return os.fsdecode(head[at : at + length]) if at and length else None


def _claimed(head: bytes, size: int) -> ImageFacts:
    if size == 0:
        raise _refused("it is empty")
    for magic, (why, remedy) in _FOREIGN.items():
        if head.startswith(magic):
            raise _refused(why, remedy)
    if head.startswith(_QCOW2_MAGIC):
        return _check_qcow2(head)
    return ImageFacts(DiskFormat.RAW, size)


def _check_qcow2(head: bytes) -> ImageFacts:
    if len(head) < _INCOMPATIBLE_AT + _INCOMPATIBLE.size:
        raise _refused("its qcow2 header is cut")
    _, version, backing_at, backing_size, _, virtual_size, encryption = _QCOW2.unpack_from(head)
    if version not in (2, 3):
        raise _refused(f"its qcow2 version is {version}, and only 2 and 3 are known")
    if backing_at or backing_size:
        raise _refused("it has a backing file", "flatten it with `qemu-img convert`")
    features = _INCOMPATIBLE.unpack_from(head, _INCOMPATIBLE_AT)[0] if version == 3 else 0
    if features & _EXTERNAL_DATA_FILE:
        raise _refused("its data is in another file", "flatten it with `qemu-img convert`")
    if encryption:
        raise _refused("it is encrypted", "use an image without encryption")
    return ImageFacts(DiskFormat.QCOW2, virtual_size)


def _refused(why: str, remedy: str = "") -> InfraError:
    return InfraError(Cause.IMAGE, f"the image is refused: {why}", remedy)
