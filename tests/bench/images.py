"""The speed of the image pipeline, against one of curl, tee, sha256sum and zstd that does the same work.

Called by the executable file `images` beside it, which says what is printed.
"""

from __future__ import annotations

import argparse
import filecmp
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from tests.real.nginx import Nginx
from tests.sources import ROOT

_THEIRS = Path(__file__).with_name("curl-pipeline")
_PULL = """\
import os, sys, time
from pathlib import Path
from solstice.images.pipeline import pull
from solstice.model import Compression, Image
url, name = sys.argv[1], Path(sys.argv[2])
output = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL)
image = Image("bench", url, name, Compression.ZSTD)
began = time.monotonic()
origin = pull(image, name.with_name(name.name + ".part"), output, lambda count, size: None)
print(origin.digest.removeprefix("sha256:"), time.monotonic() - began)
"""
_MIB = 1 << 20
_HOLE = 8 * _MIB


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests/bench/images", description=__doc__)
    parser.add_argument("--size", type=int, default=1024, metavar="MIB", help="of the disk [%(default)s]")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="of each kind [%(default)s]")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="solstice-bench-") as folder, closing(Nginx()) as server:
        server.start()
        disk, packed = Path(folder, "disk"), server.files / "disk.zst"
        _make(disk, options.size * _MIB)
        subprocess.run(["zstd", "--quiet", "--keep", disk, "-o", packed], check=True)
        packed.chmod(0o644)
        digest = subprocess.run(["sha256sum", packed], capture_output=True, text=True, check=True).stdout.split()[0]
        print(f"a disk of {options.size} MiB in {packed.stat().st_size / _MIB:.0f} MiB of zstd")
        ours, theirs = [], []
        for number in range(options.rounds):
            ours.append(_ours(f"{server.url}/disk.zst", Path(folder, "ours"), disk, digest))
            theirs.append(_curl(f"{server.url}/disk.zst", Path(folder, "theirs"), disk, digest))
            print(f"round {number + 1}: ours {ours[-1][0]:.2f} s, theirs {theirs[-1][0]:.2f} s", flush=True)
    for whose, rounds in (("ours", ours), ("theirs", theirs)):
        print(f"{whose:>6}: {options.size / min(rounds)[0]:6.0f} MiB/s, {rounds[0][1] / _MIB:.0f} MiB on disk")
    print(f"ratio: {min(theirs)[0] / min(ours)[0]:.2f}")
    return 0


def _ours(url: str, name: Path, disk: Path, digest: str) -> tuple[float, int]:
    return _measure([sys.executable, "-c", _PULL, url, str(name)], name, disk, digest)


def _curl(url: str, name: Path, disk: Path, digest: str) -> tuple[float, int]:
    return _measure([str(_THEIRS), url, str(name)], name, disk, digest)


def _measure(argv: list[str], name: Path, disk: Path, digest: str) -> tuple[float, int]:
    """Seconds, and the bytes that the result takes on the disk.

    A program that prints a second word measures itself: the images child runs already when a pull begins.
    """
    os.sync()  # what the round before has written is not this one's work
    began = time.monotonic()
    done = subprocess.run(argv, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
    seconds = time.monotonic() - began
    taken = name.with_name(f"{name.name}.sha256")
    words = (taken.read_text() if taken.exists() else done.stdout).split()
    assert words[0] == digest
    if not taken.exists():
        seconds = float(words[1])
    assert filecmp.cmp(name, disk, shallow=False)
    allocated = name.stat().st_blocks * 512
    for path in name.parent.glob(f"{name.name}*"):
        path.unlink()
    return seconds, allocated


def _make(disk: Path, size: int) -> None:
    """Files of this host on two thirds of it, with a hole after every 16 MiB of them."""
    holes = 0
    with disk.open("wb") as file:
        for path in _files():
            with path.open("rb") as source:
                shutil.copyfileobj(source, file, _MIB)
            if file.tell() >= size:
                break
            if file.tell() - holes * _HOLE >= (holes + 1) * 2 * _HOLE:
                holes += 1
                file.seek(_HOLE, os.SEEK_CUR)
        file.truncate(size)


def _files() -> Iterator[Path]:
    for folder, _, names in os.walk("/usr"):
        for name in sorted(names):
            path = Path(folder, name)
            if path.is_file() and not path.is_symlink():
                yield path
