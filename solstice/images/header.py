"""What the first bytes of an image say: pure, the check that stands before any other program sees the file.

A qcow2 can name other files of the host as its backing or data file, and whoever opens it opens those: a download must
not choose what a guest reads.  So such an image is refused here, by our own reading of the header (QEMU's
docs/interop/qcow2.txt), and only then given to qemu-img (`inspect`).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from solstice.errors import Cause, InfraError
from solstice.model import DiskFormat

HEAD = 512  # bytes of a file that `check` wants to see

# magic, version, backing file offset and size, cluster bits, virtual size, encryption method
_QCOW2 = struct.Struct(">4sIQIIQI")
_INCOMPATIBLE = struct.Struct(">Q")
_INCOMPATIBLE_AT = 72
_EXTERNAL_DATA_FILE = 1 << 2

_FOREIGN = {
    b"\x28\xb5\x2f\xfd": ("it is compressed with zstd", "set `decompress: zstd` in the image map"),
    b"\x1f\x8b": ("it is compressed with gzip", "decompress it and put it at `local_path`"),
    b"\xfd7zXZ\0": ("it is compressed with xz", "decompress it and put it at `local_path`"),
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


def check(head: bytes, size: int) -> ImageFacts:
    """What the image with these first `HEAD` bytes, of `size` bytes in all, claims to be.

    Raises `InfraError` (infra.image) for one that is not to be used.
    """
    if size == 0:
        raise _refused("it is empty")
    for magic, (why, remedy) in _FOREIGN.items():
        if head.startswith(magic):
            raise _refused(why, remedy)
    if head.startswith(b"QFI\xfb"):
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
