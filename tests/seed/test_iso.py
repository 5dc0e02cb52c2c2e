"""The ISO is read back by pycdlib, and by three programs that share no code with it."""

import io
import os
import resource
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pycdlib
import pytest

from solstice.errors import Cause, InfraError
from solstice.model import AttemptId
from solstice.seed import iso
from solstice.seed.documents import SeedContent, nocloud

ID = AttemptId("0123456789ab", "7f3a91c2-0000-4000-8000-000000000001", 1)
RUNNER = b"#!/bin/sh\n" + b"echo many lines\n" * 5000
CONTENT = nocloud(ID, RUNNER)


@pytest.fixture
def seed(tmp_path: Path) -> Path:
    path = tmp_path / "seed.iso"
    iso.write(CONTENT, path)
    return path


def output(*argv: str | Path) -> bytes:
    return subprocess.run(argv, check=True, capture_output=True).stdout


def test_pycdlib_reads_each_file_by_both_kinds_of_names(seed: Path) -> None:
    image = pycdlib.PyCdlib()
    image.open(str(seed))
    try:
        for name, data in CONTENT.files.items():
            for kind in ("rr_path", "joliet_path"):
                read = io.BytesIO()
                image.get_file_from_iso_fp(read, **{kind: f"/{name}"})
                assert read.getvalue() == data
    finally:
        image.close()


def test_bsdtar_reads_the_same_files(seed: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    output("bsdtar", "-xf", seed, "-C", target)
    assert {path.name: path.read_bytes() for path in target.iterdir()} == dict(CONTENT.files)


@pytest.mark.parametrize("names", ["-R", "-J"], ids=["Rock Ridge", "Joliet"])
def test_isoinfo_reads_the_same_files(seed: Path, names: str) -> None:
    for name, data in CONTENT.files.items():
        assert output("isoinfo", names, "-i", seed, "-x", f"/{name}") == data


def test_blkid_and_file_see_the_label_that_cloud_init_looks_for(seed: Path) -> None:
    assert output("/usr/sbin/blkid", "-p", "-o", "value", "-s", "LABEL", seed) == b"cidata\n"
    assert output("/usr/sbin/blkid", "-p", "-o", "value", "-s", "TYPE", seed) == b"iso9660\n"
    assert b"'cidata'" in output("file", "--brief", seed)


def test_an_empty_file_and_a_long_name_survive(tmp_path: Path) -> None:
    path = tmp_path / "seed.iso"
    iso.write(SeedContent({"network-config": b"", "meta-data": b"x"}), path)
    assert output("isoinfo", "-R", "-i", path, "-f").split() == [b"/meta-data", b"/network-config"]


def test_same_content_gives_same_bytes_within_one_second(tmp_path: Path) -> None:
    """pycdlib stamps the time in whole seconds; two images of the same second are equal to the byte."""
    first, second = tmp_path / "first.iso", tmp_path / "second.iso"
    for _ in range(20):
        began = int(time.time())
        iso.write(CONTENT, first)
        iso.write(SeedContent(dict(sorted(CONTENT.files.items(), reverse=True))), second)
        if int(time.time()) == began:
            assert first.read_bytes() == second.read_bytes()
            return
    pytest.fail("no two images within one second")


def test_a_seed_that_was_there_is_replaced_and_no_stage_stays(seed: Path) -> None:
    seed.write_bytes(b"torn")
    iso.write(CONTENT, seed)
    assert output("isoinfo", "-R", "-i", seed, "-x", "/runner") == RUNNER
    assert os.listdir(seed.parent) == ["seed.iso"]  # noqa: PTH208 - only the names


def test_no_descriptor_stays_open(seed: Path) -> None:
    before = sorted(Path("/proc/self/fd").iterdir())
    iso.write(CONTENT, seed)
    assert sorted(Path("/proc/self/fd").iterdir()) == before


def test_a_directory_that_is_gone_is_an_error_of_this_host(tmp_path: Path) -> None:
    with pytest.raises(InfraError, match=r"cannot write the seed .*No such file") as caught:
        iso.write(CONTENT, tmp_path / "gone" / "seed.iso")
    assert caught.value.cause is Cause.HYPERVISOR


@pytest.fixture
def no_room_for_files() -> Iterator[None]:
    """A limit of 64 KiB for every file this process writes: the write fails, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 10, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.usefixtures("no_room_for_files")
def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(InfraError, match="cannot write the seed"):
        iso.write(CONTENT, tmp_path / "seed.iso")
    assert list(tmp_path.iterdir()) == []
