import hashlib
import os
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import zstandard

from solstice.errors import Cause, InfraError
from solstice.images.obtain import obtain
from solstice.model import Compression, DiskFormat, Image
from tests.images.conftest import Server

MIB = 1 << 20
DISK = b"\xeb\x63\x90" + b"boot" * 4096 + bytes(3 * MIB)
DISK += bytes(-len(DISK) % 512)


def unwatched(count: int, size: int | None) -> None:
    """Nobody looks."""


def image(source: str, path: Path, decompress: Compression = Compression.NONE) -> Image:
    return Image("tiny", source, path, decompress)


def refusal(wanted: Image) -> InfraError:
    with pytest.raises(InfraError) as caught:
        obtain(wanted, unwatched)
    return caught.value


def test_a_compressed_image_comes_over_http_to_its_place(server: Server, tmp_path: Path) -> None:
    packer = zstandard.ZstdCompressor()
    url = server.serve("/tiny.img.zstd", packer.compress(DISK[:MIB]) + packer.compress(DISK[MIB:]))
    path = tmp_path / "images" / "tiny.img"
    facts = obtain(image(url, path, Compression.ZSTD), unwatched)
    assert (facts.format, facts.virtual_size) == (DiskFormat.RAW, len(DISK))
    assert path.read_bytes() == DISK


def test_a_qcow2_comes_from_a_file(tmp_path: Path) -> None:
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", tmp_path / "source", "64M"], check=True)
    facts = obtain(image((tmp_path / "source").as_uri(), tmp_path / "base.img"), unwatched)
    assert (facts.format, facts.virtual_size) == (DiskFormat.QCOW2, 64 * MIB)


def test_the_operator_s_file_is_used_and_not_touched(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "base.img"
    path.write_bytes(DISK)
    path.chmod(0o640)
    os.chown(path, os.getuid(), os.getgid())
    os.utime(path, ns=(10**18, 10**18))

    def seen() -> tuple[int, ...]:
        facts = path.stat()
        return (facts.st_ino, facts.st_uid, facts.st_gid, facts.st_mode, facts.st_mtime_ns, facts.st_ctime_ns)

    before = seen()
    obtain(image(server.serve("/image", b"another"), path), unwatched)
    assert seen() == before
    assert hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256(DISK).digest()
    assert server.asked == []


def test_a_dangling_link_of_the_operator_is_not_replaced(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "base.img"
    path.symlink_to(tmp_path / "not mounted" / "base.img")
    assert "No such file" in refusal(image(server.serve("/image", DISK), path)).why
    assert path.is_symlink()
    assert server.asked == []


@pytest.mark.parametrize(
    ("body", "compression", "why"),
    [
        (b"<!DOCTYPE html><title>Sign in</title>", Compression.NONE, "web page"),
        (zstandard.ZstdCompressor().compress(DISK), Compression.NONE, "compressed with zstd"),
        (zstandard.ZstdCompressor().compress(DISK)[:-4], Compression.ZSTD, "ends too early"),
        (DISK, Compression.ZSTD, "not zstd"),
        (b"", Compression.NONE, "empty"),
        (b"QFI\xfb\0\0\0\3\0\0\0\0\0\0\0\x70\0\0\0\x0b" + bytes(600), Compression.NONE, "backing file"),
    ],
)
def test_a_bad_download_is_never_put_in_place(
    server: Server, tmp_path: Path, body: bytes, compression: Compression, why: str
) -> None:
    error = refusal(image(server.serve("/image", body), tmp_path / "base.img", compression))
    assert why in error.why
    assert error.cause is Cause.IMAGE
    assert list(tmp_path.iterdir()) == []


def test_a_watcher_that_gives_up_ends_the_download_and_leaves_nothing(server: Server, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []

    def watch(count: int, size: int | None) -> None:
        seen.append((count, size))
        if count > MIB:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        obtain(image(server.serve("/image", DISK), tmp_path / "base.img"), watch)
    assert seen[0] == (0, len(DISK))
    assert len(seen) > 10
    assert list(tmp_path.iterdir()) == []


def test_of_many_at_once_one_downloads_and_the_others_wait_or_use_it(server: Server, tmp_path: Path) -> None:
    wanted = image(server.serve("/image", DISK), tmp_path / "base.img")
    together = threading.Barrier(8)

    def one(_: int) -> str:
        together.wait()
        try:
            return f"{obtain(wanted, unwatched).virtual_size}"
        except InfraError as error:
            return error.why

    with ThreadPoolExecutor(8) as pool:
        results = set(pool.map(one, range(8)))
    busy = f"{tmp_path}/.base.img.stage: another process is writing this image"
    assert str(len(DISK)) in results
    assert results <= {str(len(DISK)), busy}
    assert server.asked == ["/image"]
    assert [path.name for path in tmp_path.iterdir()] == ["base.img"]
    assert (tmp_path / "base.img").read_bytes() == DISK


def test_a_full_disk_is_told_as_such(tmp_path: Path) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(tmp_path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("this user or this container may not mount a small file system")
    try:
        source = tmp_path.with_name("source")
        source.write_bytes(b"\xeb" * 4 * MIB)
        assert refusal(image(str(source), tmp_path / "base.img")).cause is Cause.DISK_FULL
        assert list(tmp_path.iterdir()) == []
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    error = refusal(image(str(tmp_path / "none"), tmp_path / "file" / "base.img"))
    assert error.why == f"{tmp_path / 'file'}: File exists"
