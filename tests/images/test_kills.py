"""SIGKILL at every named moment of a pull, a refresh and a conversion: the old version or the new one, and the next
start finishes the work."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from solstice.host import racepoints
from solstice.images.obtain import obtain
from solstice.images.versions import Shelf
from solstice.model import DiskFormat, Image
from solstice.protocol.codec import to_plain
from tests.images.conftest import Server, begin
from tests.racing import Race
from tests.sources import ROOT

MIB = 1 << 20
DISK = b"\xeb" * MIB + bytes(3 * MIB)
NEWER = b"\xec" * MIB + bytes(3 * MIB)
# of a whole part the last byte is fetched again, to learn whether the source still is what it was
ASKED = 1
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


class Source:
    """An image on a server with ranges and ETags; `sent` is how many bytes of it went out."""

    def __init__(self, server: Server) -> None:
        self.body = DISK
        self.sent = 0
        self.url = server.route("/tiny", self._answer)

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        etag = f'"{hashlib.sha256(self.body).hexdigest()}"'
        if request.headers.get("If-None-Match") == etag:
            begin(request, {"ETag": etag}, 304)
            return
        found = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
        start = int(found[1]) if found and request.headers.get("If-Range") == etag else 0
        length, whole = len(self.body) - start, len(self.body)
        headers = {"ETag": etag, "Content-Length": str(length)}
        if start >= whole:
            begin(request, {"Content-Range": f"bytes */{whole}", "Content-Length": "0"}, 416)
            return
        if start:
            begin(request, {**headers, "Content-Range": f"bytes {start}-{whole - 1}/{whole}"}, 206)
        else:
            begin(request, headers)
        self.sent += length
        request.wfile.write(self.body[start:])


@pytest.fixture
def source(server: Server) -> Source:
    return Source(server)


@pytest.fixture
def image(source: Source, tmp_path: Path) -> Image:
    return Image("tiny", source.url, tmp_path / "images" / "tiny.img")


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
    assert {path.name for path in shelf.directory.iterdir()} == {".lock", ".change"} | {
        name for version in shelf.versions() for name in (version.name, f"{version.name}.json")
    }
    assert [path.name for path in image.local_path.parent.iterdir() if path.name.startswith(".")] == []
    return found.ready.path.read_bytes()


@pytest.mark.parametrize("point", ALWAYS)
def test_a_pull_that_was_killed_is_finished_without_fetching_again_what_was_there(
    point: str, race: Race, source: Source, image: Image
) -> None:
    killed_at(point, race, image)
    if os.path.lexists(image.local_path):
        assert image.local_path.read_bytes() == DISK
    obtain(image, quiet)
    assert finished(image, refresh=True) == DISK
    assert len(DISK) <= source.sent <= len(DISK) + ASKED


@pytest.mark.parametrize("point", ALWAYS)
def test_a_refresh_that_was_killed_leaves_the_old_version_or_the_new_one(
    point: str, race: Race, source: Source, image: Image
) -> None:
    assert finished(image) == DISK
    source.body = NEWER
    killed_at(point, race, image, refresh=True)
    left = image.local_path.read_bytes()
    assert left in (DISK, NEWER)
    found = obtain(image, quiet)
    assert found.ready is not None
    assert found.ready.path.read_bytes() == image.local_path.read_bytes()
    assert finished(image, refresh=True) == NEWER
    whole = len(DISK) + len(NEWER)
    assert whole <= source.sent <= whole + ASKED


@pytest.mark.parametrize("point", ["images.convert.after", "images.settle.after", "images.record.after"])
def test_a_conversion_that_was_killed_is_begun_again(point: str, race: Race, source: Source, image: Image) -> None:
    obtain(image, quiet)
    packed = replace(image, prepare=DiskFormat.QCOW2)
    killed_at(point, race, packed)
    assert image.local_path.read_bytes() == DISK
    assert finished(packed).startswith(b"QFI\xfb")
    assert source.sent == len(DISK)


def test_what_was_left_of_a_look_is_looked_at_again_at_once(race: Race, source: Source, image: Image) -> None:
    obtain(image, quiet)
    source.body = NEWER
    killed_at("images.pull.after", race, image, refresh=True)
    assert obtain(image, quiet).look_at == 0.0
    obtain(image, quiet, refresh=True)
    assert obtain(image, quiet).look_at is None
