import os
import subprocess
from pathlib import Path

import pytest

from solstice.errors import InfraError
from solstice.images.header import ImageFacts
from solstice.images.inspect import inspect
from solstice.model import DiskFormat

MIB = 1 << 20


def qemu_img(*arguments: str | Path) -> None:
    subprocess.run(["qemu-img", *arguments], check=True, capture_output=True)


def test_a_real_qcow2_is_confirmed(tmp_path: Path) -> None:
    path = tmp_path / "base.img"
    qemu_img("create", "-q", "-f", "qcow2", path, "64M")
    assert inspect(path) == ImageFacts(DiskFormat.QCOW2, 64 * MIB)


def test_a_raw_image_is_confirmed(tmp_path: Path) -> None:
    path = tmp_path / "base.img"
    path.write_bytes(b"\xeb" + bytes(MIB - 1))
    assert inspect(path) == ImageFacts(DiskFormat.RAW, MIB)


def test_a_name_that_looks_like_a_protocol_is_still_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("nbd:base.img")
    path.write_bytes(b"\xeb" + bytes(MIB - 1))
    assert inspect(path).virtual_size == MIB


def test_real_images_that_open_other_files_are_refused(tmp_path: Path) -> None:
    base, overlay, split = tmp_path / "base.raw", tmp_path / "overlay", tmp_path / "split"
    base.write_bytes(bytes(MIB))
    qemu_img("create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", overlay)
    qemu_img("create", "-q", "-f", "qcow2", "-o", f"data_file={tmp_path / 'data'}", split, "1M")
    with pytest.raises(InfraError, match="backing file"):
        inspect(overlay)
    with pytest.raises(InfraError, match="another file"):
        inspect(split)


def test_a_qcow2_that_qemu_img_cannot_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "base.img"
    qemu_img("create", "-q", "-f", "qcow2", path, "64M")
    with path.open("r+b") as file:
        file.seek(20)
        file.write((63).to_bytes(4, "big"))  # cluster bits that no QEMU takes
    with pytest.raises(InfraError, match="qemu-img info"):
        inspect(path)


def test_a_fifo_and_a_directory_are_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", tmp_path):
        with pytest.raises(InfraError, match="not a regular file"):
            inspect(path)
