"""SIGKILL at every named moment of a pull, a refresh and a conversion: the old version or the new one, and the next
start finishes the work."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from solstice.host import racepoints
from solstice.images.obtain import obtain
from solstice.images.versions import Shelf
from solstice.model import DiskFormat, Image
from solstice.protocol.codec import to_plain
from tests.images.conftest import Server
from tests.racing import Race
from tests.sources import ROOT

MIB = 1 << 20
DISK = b"\xeb" * MIB + bytes(3 * MIB)
NEWER = b"\xec" * MIB + bytes(3 * MIB)
POINTS = sorted(point for point in racepoints.POINTS if point.startswith("images."))
ALWAYS = [point for point in POINTS if "convert" not in point]

OBTAIN = """
import json, sys
from solstice.images.obtain import obtain
from solstice.model import Image
from solstice.protocol.codec import from_plain
image, refresh = json.loads(sys.argv[1])
obtain(from_plain(Image, image), lambda _count, _size: None, refresh=refresh)
"""


@pytest.fixture
def race(tmp_path: Path) -> Iterator[Race]:
    race = Race(tmp_path / "race")
    yield race
    race.close()


def killed_at(point: str, race: Race, image: Image, *, refresh: bool = False) -> None:
    race.arm(point)
    environment = {"PATH": os.environ["PATH"], racepoints.VARIABLE: str(race.folder)}
    argv = [sys.executable, "-c", OBTAIN, json.dumps([to_plain(image), refresh])]
    with subprocess.Popen(argv, cwd=ROOT, env=environment) as process:
        assert race.reached() == (point, process.pid)
        process.kill()
        assert process.wait(20) == -signal.SIGKILL


def quiet(_count: int, _size: int | None) -> None:
    """Nobody looks."""


def finished(image: Image, *, refresh: bool = False) -> bytes:
    """What a new start makes ready, with nothing left of the one that was killed."""
    found = obtain(image, quiet, refresh=refresh)
    assert found.ready is not None
    shelf = Shelf(image)
    assert image.local_path.resolve() == found.ready.path.resolve()
    assert {path.name for path in shelf.directory.iterdir()} == {".lock"} | {
        name for version in shelf.versions() for name in (version.name, f"{version.name}.json")
    }
    assert [path.name for path in image.local_path.parent.iterdir() if path.name.startswith(".")] == []
    return found.ready.path.read_bytes()


@pytest.mark.parametrize("point", ALWAYS)
def test_a_pull_that_was_killed_is_finished_by_the_next_start(
    point: str, race: Race, server: Server, tmp_path: Path
) -> None:
    image = Image("tiny", server.serve("/tiny", DISK), tmp_path / "images" / "tiny.img")
    killed_at(point, race, image)
    if os.path.lexists(image.local_path):
        assert image.local_path.read_bytes() == DISK
    assert finished(image) == DISK


@pytest.mark.parametrize("point", ALWAYS)
def test_a_refresh_that_was_killed_leaves_the_old_version_or_the_new_one(
    point: str, race: Race, server: Server, tmp_path: Path
) -> None:
    image = Image("tiny", server.serve("/tiny", DISK), tmp_path / "images" / "tiny.img")
    assert finished(image) == DISK
    server.serve("/tiny", NEWER)
    killed_at(point, race, image, refresh=True)
    left = image.local_path.read_bytes()
    assert left in (DISK, NEWER)
    found = obtain(image, quiet)
    assert found.ready is not None
    assert found.ready.path.read_bytes() == image.local_path.read_bytes()
    assert finished(image, refresh=True) == NEWER


@pytest.mark.parametrize("point", ["images.convert.after", "images.settle.after", "images.record.after"])
def test_a_conversion_that_was_killed_is_begun_again(point: str, race: Race, server: Server, tmp_path: Path) -> None:
    image = Image("tiny", server.serve("/tiny", DISK), tmp_path / "images" / "tiny.img")
    obtain(image, quiet)
    packed = replace(image, prepare=DiskFormat.QCOW2)
    killed_at(point, race, packed)
    assert image.local_path.read_bytes() == DISK
    assert finished(packed).startswith(b"QFI\xfb")
    assert server.asked == ["/tiny"]
