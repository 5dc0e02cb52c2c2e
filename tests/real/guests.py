"""The guests' images and a root, built once per version of their builder and kept in a cache.  Called by conftest.

An image in the cache is read-only and its folder may be closed to QEMU's user: whoever boots one copies it first.
The cache is `SOLSTICE_TEST_CACHE`, or solstice-tests under the user's cache folder; it may be deleted at any time.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
from pathlib import Path

_TREE = Path(__file__).resolve().parents[2]
_BUILD_SECONDS = 1200.0


def cache_folder() -> Path:
    """Where built images are kept."""
    named = os.environ.get("SOLSTICE_TEST_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "solstice-tests"


def tiny_image() -> Path:
    """The qcow2 image of the tiny guest; seconds to build."""
    folder = _TREE / "examples" / "tiny-guest"
    return _built("tiny", ".qcow2", folder / "build", sorted(folder.iterdir()))


def debian_image() -> Path:
    """The qcow2 image of Debian 12 with stock cloud-init; minutes to build, as root."""
    builder = _TREE / "tests" / "guests" / "debian-guest"
    return _built("debian", ".qcow2", builder, [builder])


def rabbitmq4_root() -> Path:
    """The folder of a Debian 13 root with RabbitMQ 4.0; half a minute to build, as root."""
    builder = _TREE / "tests" / "guests" / "rabbitmq4-root"
    return _built("rabbitmq4", "", builder, [builder])


def _built(name: str, suffix: str, builder: Path, sources: list[Path]) -> Path:
    digest = hashlib.sha256()
    for source in sources:
        digest.update(source.name.encode() + b"\0" + source.read_bytes() + b"\0")
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    image = folder / f"{name}-{digest.hexdigest()[:16]}{suffix}"
    # one builder at a time: a second test run waits for the first one's image
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not image.exists():
            _build(builder, image)
    return image


def _build(builder: Path, image: Path) -> None:
    staged = image.with_name(f"staged-{image.name}")
    log = image.with_suffix(".log")
    with log.open("wb") as sink:
        status = subprocess.run(
            [builder, staged], stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, timeout=_BUILD_SECONDS, check=False
        ).returncode
    if status != 0:
        tail = log.read_text(errors="replace")[-3000:]
        raise RuntimeError(f"{builder.name} failed with status {status}; the end of {log}:\n{tail}")
    if staged.is_file():
        staged.chmod(0o444)
    staged.rename(image)
