import struct
import subprocess
from pathlib import Path

import pytest

from solstice.errors import Cause, InfraError
from solstice.images.header import BACKING_HEAD, ImageFacts, backing_of, check
from solstice.model import DiskFormat

GIB = 1 << 30


def qcow2(
    version: int = 3, backing_at: int = 0, backing_size: int = 0, encryption: int = 0, features: int = 0
) -> bytes:
    """A qcow2 header, field by field from QEMU's docs/interop/qcow2.txt."""
    head = b"QFI\xfb" + struct.pack(">IQIIQI", version, backing_at, backing_size, 16, GIB, encryption)
    return head + bytes(72 - len(head)) + struct.pack(">Q", features) + bytes(432)


@pytest.mark.parametrize("version", [2, 3])
def test_a_plain_qcow2_is_known_with_its_virtual_size(version: int) -> None:
    assert check(qcow2(version), 200_000) == ImageFacts(DiskFormat.QCOW2, GIB)


def test_anything_else_is_raw_and_as_large_as_its_file() -> None:
    assert check(b"\xeb\x63\x90" + bytes(509), 4096) == ImageFacts(DiskFormat.RAW, 4096)


@pytest.mark.parametrize(
    ("head", "why"),
    [
        (qcow2(backing_at=0x200, backing_size=11), "has a backing file"),
        (qcow2(2, backing_at=0x200, backing_size=11), "has a backing file"),
        (qcow2(backing_at=0x200), "has a backing file"),
        (qcow2(backing_size=11), "has a backing file"),
        (qcow2(features=1 << 2), "data is in another file"),
        (qcow2(features=1 << 2 | 1 << 3 | 1 << 40), "data is in another file"),
        (qcow2(encryption=2), "encrypted"),
        (qcow2(version=1), "version is 1"),
        (qcow2(version=4), "version is 4"),
        (qcow2()[:79], "header is cut"),
        (b"QFI\xfb", "header is cut"),
        (b"\x28\xb5\x2f\xfd" + bytes(100), "compressed with zstd"),
        (b"\x1f\x8b" + bytes(100), "compressed with gzip"),
        (b"<!DOCTYPE html><title>Login</title>", "web page"),
    ],
)
def test_a_hostile_or_foreign_image_is_refused(head: bytes, why: str) -> None:
    with pytest.raises(InfraError, match=why) as caught:
        check(head, max(len(head), 1 << 20))
    assert caught.value.cause is Cause.IMAGE
    assert caught.value.remedy


def test_features_of_version_2_are_not_read() -> None:
    """The field begins with version 3: what stands there in a version 2 image is something else."""
    assert check(qcow2(2, features=1 << 2), 200_000).format is DiskFormat.QCOW2


def test_an_empty_image_is_refused() -> None:
    with pytest.raises(InfraError, match="empty"):
        check(b"", 0)


def test_a_qcow2_header_where_a_raw_disk_is_expected_is_refused() -> None:
    with pytest.raises(InfraError, match="begins with a qcow2 header where a raw disk is expected"):
        check(qcow2(), 200_000, DiskFormat.RAW)
    with pytest.raises(InfraError, match="no qcow2 header where a qcow2 disk is expected"):
        check(bytes(512), 4096, DiskFormat.QCOW2)
    assert check(qcow2(), 200_000, DiskFormat.QCOW2).format is DiskFormat.QCOW2


def test_the_backing_file_of_a_real_overlay_is_found(tmp_path: Path) -> None:
    base, overlay = tmp_path / ("long" * 40), tmp_path / "overlay"
    base.write_bytes(bytes(1 << 20))
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", overlay], check=True)
    assert backing_of(overlay.read_bytes()[:BACKING_HEAD]) == str(base)


@pytest.mark.parametrize("head", [b"", b"QFI\xfb", bytes(512), qcow2()])
def test_what_has_no_backing_file_names_none(head: bytes) -> None:
    assert backing_of(head) is None
