"""One image on its way: pulled, published as a version, pointed at; used as it is, refreshed, rolled back, refused."""

import hashlib
import os
import stat
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard

from solstice.errors import Cause, InfraError
from solstice.images import prune
from solstice.images.obtain import Usable, obtain, rollback, verdict
from solstice.images.versions import Shelf
from solstice.model import Compression, DiskFormat, Image
from tests.images.conftest import Server

MIB = 1 << 20
DISK = b"\xeb\x63\x90" + b"boot" * 4096 + bytes(3 * MIB)
DISK += bytes(-len(DISK) % 512)
NEWER = b"\xeb\x63\x91" + DISK[3:]
NEWEST = b"\xeb\x63\x92" + DISK[3:]


def unwatched(count: int, size: int | None) -> None:
    """Nobody looks."""


def image(source: str, path: Path, decompress: Compression = Compression.NONE) -> Image:
    return Image("tiny", source, path, decompress)


def ready(wanted: Image, *, refresh: bool = False, again: bool = False) -> Usable:
    found = obtain(wanted, unwatched, refresh=refresh, again=again).ready
    assert found is not None
    return found


def refusal(wanted: Image, *, refresh: bool = False) -> InfraError:
    with pytest.raises(InfraError) as caught:
        obtain(wanted, unwatched, refresh=refresh)
    return caught.value


def names(wanted: Image) -> set[str]:
    """What lies among the versions, its lock apart."""
    return {path.name for path in Shelf(wanted).directory.iterdir()} - {".lock", ".change"}


def hexdigest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def files_of(*disks: bytes) -> set[str]:
    return {name for disk in disks for name in (hexdigest(disk), f"{hexdigest(disk)}.json")}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(DISK)
    return path


@pytest.fixture
def local(source: Path, tmp_path: Path) -> Image:
    """An image that comes from a file of the test."""
    return image(str(source), tmp_path / "images" / "tiny.img")


def test_a_compressed_image_comes_over_http_and_is_a_version(server: Server, tmp_path: Path) -> None:
    packer = zstandard.ZstdCompressor()
    packed = packer.compress(DISK[:MIB]) + packer.compress(DISK[MIB:])
    wanted = image(server.serve("/tiny.img.zstd", packed), tmp_path / "images" / "tiny.img", Compression.ZSTD)
    found = ready(wanted)
    assert (found.format, found.virtual_size) == (DiskFormat.RAW, len(DISK))
    assert found.digest == f"sha256:{hexdigest(packed)}"
    assert found.path == tmp_path / "images" / "versions" / "tiny" / hexdigest(packed)
    assert stat.S_IMODE(found.path.stat().st_mode) == 0o444
    assert wanted.local_path.readlink() == Path("versions", "tiny", hexdigest(packed))
    assert wanted.local_path.read_bytes() == DISK
    assert names(wanted) == files_of(packed)


def test_a_qcow2_comes_from_a_file(tmp_path: Path) -> None:
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", tmp_path / "source", "64M"], check=True)
    found = ready(image((tmp_path / "source").as_uri(), tmp_path / "base.img"))
    assert (found.format, found.virtual_size) == (DiskFormat.QCOW2, 64 * MIB)


def test_what_is_there_is_used_without_asking_the_source(server: Server, tmp_path: Path) -> None:
    wanted = image(server.serve("/image", DISK), tmp_path / "base.img")
    first = ready(wanted)
    assert ready(wanted) == first
    assert server.asked == ["/image"]


def test_the_operator_s_file_is_used_and_not_touched(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "base.img"
    path.write_bytes(DISK)
    path.chmod(0o640)
    os.utime(path, ns=(10**18, 10**18))

    def seen() -> tuple[int, ...]:
        facts = path.stat()
        return (facts.st_ino, facts.st_uid, facts.st_gid, facts.st_mode, facts.st_mtime_ns, facts.st_ctime_ns)

    before = seen()
    wanted = image(server.serve("/image", b"another"), path)
    found = ready(wanted)
    assert (found.path, found.virtual_size) == (path, len(DISK))
    assert found.digest.startswith("blocks-sha256:")
    error = refusal(wanted, refresh=True)
    assert "an operator put there" in error.why
    assert "move it away" in error.remedy
    with pytest.raises(InfraError, match="an operator put there"):
        rollback(wanted, "no")
    assert seen() == before
    assert path.read_bytes() == DISK
    assert server.asked == []
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_of_the_operator_is_followed_and_a_dangling_one_not_replaced(server: Server, tmp_path: Path) -> None:
    path, target = tmp_path / "base.img", tmp_path / "elsewhere.img"
    path.symlink_to(target)
    wanted = image(server.serve("/image", DISK), path)
    assert "No such file" in refusal(wanted).why
    target.write_bytes(DISK)
    assert ready(wanted).path == path
    assert path.readlink() == target
    assert server.asked == []


def test_a_file_that_was_put_there_during_the_pull_is_not_overwritten(local: Image) -> None:
    def interfere(_count: int, _size: int | None) -> None:
        local.local_path.write_bytes(NEWER)

    with pytest.raises(InfraError, match="never overwritten"):
        obtain(local, interfere)
    assert local.local_path.read_bytes() == NEWER
    assert ready(local).path == local.local_path


@pytest.mark.parametrize(
    ("body", "compression", "why"),
    [
        (b"<!DOCTYPE html><title>Sign in</title>", Compression.NONE, "web page"),
        (zstandard.ZstdCompressor().compress(DISK), Compression.NONE, "compressed with zstd"),
        (b"", Compression.NONE, "empty"),
        (b"QFI\xfb\0\0\0\3\0\0\0\0\0\0\0\x70\0\0\0\x0b" + bytes(600), Compression.NONE, "backing file"),
        (
            zstandard.ZstdCompressor().compress(b"QFI\xfb\0\0\0\3\0\0\0\0\0\0\0\x70\0\0\0\x0b" + bytes(600)),
            Compression.ZSTD,
            "backing file",
        ),
    ],
)
def test_what_is_no_usable_image_is_never_put_in_place(
    server: Server, tmp_path: Path, body: bytes, compression: Compression, why: str
) -> None:
    wanted = image(server.serve("/image", body), tmp_path / "base.img", compression)
    error = refusal(wanted)
    assert why in error.why
    assert error.cause is Cause.IMAGE
    assert not os.path.lexists(wanted.local_path)
    assert names(wanted) == set()


def test_a_watcher_that_gives_up_ends_the_pull_and_leaves_no_image(server: Server, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []

    def watch(count: int, size: int | None) -> None:
        seen.append((count, size))
        if count > MIB:
            raise KeyboardInterrupt

    wanted = image(server.serve("/image", DISK), tmp_path / "base.img")
    with pytest.raises(KeyboardInterrupt):
        obtain(wanted, watch)
    assert seen[-1][1] == len(DISK)
    assert not os.path.lexists(wanted.local_path)
    assert not Shelf(wanted).stage.exists()


def test_of_many_at_once_one_downloads_and_the_others_wait_or_use_it(server: Server, tmp_path: Path) -> None:
    wanted = image(server.serve("/image", DISK), tmp_path / "base.img")
    together = threading.Barrier(8)

    def one(_: int) -> str:
        together.wait()
        try:
            return f"{ready(wanted).virtual_size}"
        except InfraError as error:
            return error.why

    with ThreadPoolExecutor(8) as pool:
        results = set(pool.map(one, range(8)))
    busy = f"{Shelf(wanted).directory}: another process is writing this image"
    assert str(len(DISK)) in results
    assert results <= {str(len(DISK)), busy}
    assert server.asked == ["/image"]
    assert wanted.local_path.read_bytes() == DISK


def test_a_full_disk_is_told_as_such(tmp_path: Path) -> None:
    place = tmp_path / "images"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("this user or this container may not mount a small file system")
    try:
        (tmp_path / "source").write_bytes(b"\xeb" * 4 * MIB)
        wanted = image(str(tmp_path / "source"), place / "base.img")
        assert refusal(wanted).cause is Cause.DISK_FULL
        assert names(wanted) == set()
    finally:
        subprocess.run(["umount", place], check=True)


def test_a_disk_that_is_full_when_an_image_is_converted_is_told_as_such(tmp_path: Path) -> None:
    place = tmp_path / "images"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("this user or this container may not mount a small file system")
    try:
        raw, packed = tmp_path / "raw", tmp_path / "packed"
        raw.write_bytes(b"\xeb" * 8 * MIB)
        subprocess.run(["qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", raw, packed], check=True)
        wanted = replace(image(str(packed), place / "base.img"), prepare=DiskFormat.RAW)
        assert refusal(wanted).cause is Cause.DISK_FULL
        assert names(wanted) == set()
    finally:
        subprocess.run(["umount", place], check=True)


def test_a_disk_that_is_larger_than_it_may_be_is_not_converted(tmp_path: Path) -> None:
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", tmp_path / "source", "8M"], check=True)
    wanted = replace(image(str(tmp_path / "source"), tmp_path / "base.img"), prepare=DiskFormat.RAW)
    error = refusal(replace(wanted, max_size=8 * MIB - 1))
    assert error.cause is Cause.IMAGE
    assert f"a disk of {8 * MIB} bytes" in error.why
    assert "`max_size`" in error.remedy
    assert names(wanted) == set()
    assert ready(replace(wanted, max_size=8 * MIB)).virtual_size == 8 * MIB


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    error = refusal(image(str(tmp_path / "none"), tmp_path / "file" / "base.img"))
    assert str(tmp_path / "file") in error.why
    assert "Not a directory" in error.why


def test_a_refresh_publishes_what_is_new_beside_what_was(local: Image, source: Path) -> None:
    old = ready(local)
    assert ready(local, refresh=True) == old
    source.write_bytes(NEWER)
    assert ready(local) == old
    new = ready(local, refresh=True)
    assert new.path.read_bytes() == NEWER == local.local_path.read_bytes()
    assert old.path.read_bytes() == DISK
    assert names(local) == files_of(DISK, NEWER)


def test_a_refresh_that_fails_leaves_what_was(local: Image, source: Path) -> None:
    old = ready(local)
    source.write_bytes(b"<html>gone")
    assert "web page" in refusal(local, refresh=True).why
    source.unlink()
    refusal(local, refresh=True)
    assert ready(local) == old
    assert names(local) == files_of(DISK)


def test_a_source_that_goes_back_is_followed(local: Image, source: Path) -> None:
    old = ready(local)
    source.write_bytes(NEWER)
    ready(local, refresh=True)
    source.write_bytes(DISK)
    assert ready(local, refresh=True) == old == ready(local)


def test_a_rollback_goes_back_and_a_refresh_does_not_undo_it(local: Image, source: Path) -> None:
    old = ready(local)
    source.write_bytes(NEWER)
    ready(local, refresh=True)
    assert rollback(local, "it panics").name == old.path.name
    assert ready(local) == ready(local, refresh=True) == old
    assert local.local_path.read_bytes() == DISK
    source.write_bytes(NEWEST)
    assert ready(local, refresh=True).path.read_bytes() == NEWEST


def test_a_version_that_was_rolled_back_comes_again_if_it_is_asked_for(local: Image, source: Path) -> None:
    ready(local)
    source.write_bytes(NEWER)
    ready(local, refresh=True)
    rollback(local, "it panics")
    assert ready(local, refresh=True, again=True).path.read_bytes() == NEWER


def test_there_must_be_an_earlier_version_to_go_back_to(local: Image, source: Path) -> None:
    ready(local)
    with pytest.raises(InfraError, match="no earlier version"):
        rollback(local, "it panics")
    source.write_bytes(NEWER)
    ready(local, refresh=True)
    rollback(local, "it panics")
    with pytest.raises(InfraError, match="no earlier version"):
        rollback(local, "it panics too")


def test_another_source_in_the_map_is_another_version_and_can_be_rolled_back(local: Image, tmp_path: Path) -> None:
    old = ready(local)
    (tmp_path / "another").write_bytes(NEWER)
    moved = replace(local, source=str(tmp_path / "another"))
    assert ready(moved).path.read_bytes() == NEWER
    rollback(moved, "it panics")
    assert ready(moved) == old


def test_a_digest_in_the_map_refuses_a_version_with_another(local: Image, source: Path) -> None:
    ready(local)
    fixed = replace(local, sha256=hexdigest(NEWER))
    source.write_bytes(NEWER)
    assert ready(fixed).path.read_bytes() == NEWER
    with pytest.raises(InfraError, match="says by its digest"):
        rollback(fixed, "it panics")
    assert ready(replace(local, sha256=hexdigest(NEWER))).digest == f"sha256:{hexdigest(NEWER)}"


def test_a_version_that_is_gone_is_pulled_again(local: Image) -> None:
    found = ready(local)
    found.path.unlink()
    assert ready(local) == found
    assert found.path.read_bytes() == DISK


def test_an_image_is_converted_once_and_not_pulled_for_it(local: Image, source: Path) -> None:
    ready(local)
    source.unlink()
    packed = replace(local, prepare=DiskFormat.QCOW2)
    found = ready(packed)
    assert (found.format, found.virtual_size) == (DiskFormat.QCOW2, len(DISK))
    assert found.path.name == f"{hexdigest(DISK)}-qcow2"
    assert stat.S_IMODE(found.path.stat().st_mode) == 0o444
    stamp = found.path.stat().st_mtime_ns
    assert ready(packed) == found
    assert found.path.stat().st_mtime_ns == stamp
    back = ready(replace(local, prepare=DiskFormat.RAW))
    assert back.path.read_bytes() == DISK


def test_a_raw_disk_that_begins_with_a_qcow2_header_is_refused_where_raw_is_expected(tmp_path: Path) -> None:
    inner, outer = tmp_path / "inner", tmp_path / "outer"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", inner, "1M"], check=True)
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", inner, outer], check=True)
    wanted = replace(image(str(outer), tmp_path / "base.img"), prepare=DiskFormat.RAW)
    assert "begins with a qcow2 header where a raw disk is expected" in refusal(wanted).why
    assert names(wanted) == set()


def test_a_version_whose_header_has_changed_is_refused(local: Image) -> None:
    found = ready(local)
    found.path.chmod(0o644)
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", found.path, "1M"], check=True)
    assert "where a raw disk is expected" in refusal(local).why


def test_a_new_version_waits_for_its_boot_test_and_the_old_one_is_used_meanwhile(local: Image, source: Path) -> None:
    tested = replace(local, boot_test=True)
    first = obtain(tested, unwatched)
    assert first.ready is None
    assert first.candidate is not None
    assert obtain(tested, unwatched) == first
    assert verdict(tested, first.candidate.path, True, "").ready == first.candidate
    source.write_bytes(NEWER)
    second = obtain(tested, unwatched, refresh=True)
    assert second.ready == first.candidate
    assert second.candidate is not None
    assert second.candidate.path.read_bytes() == NEWER
    assert tested.local_path.read_bytes() == DISK
    assert verdict(tested, second.candidate.path, False, "no hello").ready == first.candidate
    assert obtain(tested, unwatched, refresh=True).candidate is None


def test_an_image_whose_only_version_did_not_boot_is_not_ready(local: Image) -> None:
    tested = replace(local, boot_test=True)
    found = obtain(tested, unwatched)
    assert found.candidate is not None
    with pytest.raises(InfraError, match="did not pass its boot test: no hello"):
        verdict(tested, found.candidate.path, False, "no hello")
    error = refusal(tested)
    assert "no hello" in error.why
    assert "refresh --again" in error.remedy
    assert obtain(tested, unwatched, refresh=True, again=True).candidate == found.candidate


def test_a_version_in_use_is_not_tested_when_tests_are_turned_on(local: Image) -> None:
    found = ready(local)
    assert ready(replace(local, boot_test=True)) == found


def test_the_next_look_is_so_long_after_the_last(local: Image) -> None:
    assert obtain(local, unwatched).look_at is None
    weekly = replace(local, refresh=7 * 86400.0)
    first = obtain(weekly, unwatched).look_at
    known = Shelf(weekly).known()
    assert known is not None
    assert first == known.checked + 7 * 86400.0
    later = obtain(weekly, unwatched, refresh=True).look_at
    assert later is not None
    assert later > first


def test_a_version_that_was_rolled_back_stays_refused_although_it_was_pruned(local: Image, source: Path) -> None:
    old = ready(local)
    source.write_bytes(NEWER)
    new = ready(local, refresh=True)
    rollback(local, "it does not boot")
    source.write_bytes(DISK)
    assert ready(local, refresh=True).path == old.path
    shelf = Shelf(local)
    os.utime(shelf.link, (0, 0), follow_symlinks=False)
    (spare,) = [spare for spare in prune.spares(shelf) if spare.path == new.path]
    assert prune.remove(spare, local.local_path.parent / "jobs") is None
    source.write_bytes(NEWER)
    assert ready(local, refresh=True).path == old.path


def test_the_current_version_is_no_spare_although_its_record_changes_while_we_look(local: Image) -> None:
    ready(local)
    shelf = Shelf(local)
    (version,) = shelf.versions()
    shelf.record(replace(version, checked=version.checked + 1.0))
    os.utime(shelf.link, (0, 0), follow_symlinks=False)
    stale = prune.Spare(shelf, version, 0.0)
    assert prune.remove(stale, local.local_path.parent / "jobs") == "it is used"


def test_a_rollback_goes_only_to_what_was_in_use(local: Image, source: Path) -> None:
    tested = replace(local, boot_test=True)
    first = ready(local)
    source.write_bytes(NEWER)
    assert obtain(tested, unwatched, refresh=True).candidate is not None
    source.write_bytes(NEWEST)
    newest = obtain(tested, unwatched, refresh=True).candidate
    assert newest is not None
    verdict(tested, newest.path, True, "")
    rollback(tested, "it is slow")
    assert ready(tested).path == first.path


def test_a_rollback_does_not_wait_for_a_pull(local: Image, source: Path) -> None:
    old = ready(local)
    source.write_bytes(NEWER)
    ready(local, refresh=True)
    with Shelf(local).locked():
        assert refusal(local, refresh=True).why.endswith("another process is writing this image")
        rollback(local, "it is slow")
    assert ready(local).path == old.path


def test_what_was_never_checked_against_a_checksum_file_is_fetched_again_and_checked(
    local: Image, source: Path
) -> None:
    ready(local)
    sums = source.with_name("SHA256SUMS")
    sums.write_text(f"{'0' * 64}  {source.name}\n")
    checked = replace(local, checksum_url=sums.as_uri())
    assert hexdigest(DISK) in refusal(checked).why
    sums.write_text(f"{hexdigest(DISK)}  {source.name}\n")
    assert ready(checked).digest == f"sha256:{hexdigest(DISK)}"


def test_the_link_of_an_image_that_got_another_name_is_ours(local: Image) -> None:
    ready(local)
    renamed = replace(local, name="renamed")
    assert ready(renamed).path.parent.name == "renamed"
    assert ready(renamed, refresh=True).path == local.local_path.resolve()
