"""The image map that Solstice ships, and the way of its first image from a server to a disk."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import zstandard

from solstice.config.imagemap import load
from solstice.images.obtain import obtain
from solstice.model import DiskFormat
from tests.images.conftest import Server
from tests.sources import ROOT

MIB = 1 << 20
DISK = b"\xeb\x63\x90" + b"illumos!" * 40_000
DISK += bytes(16 * MIB - len(DISK))


def test_the_openindiana_entry_is_pulled_from_a_server_with_such_a_file(server: Server, tmp_path: Path) -> None:
    entry = load(ROOT / "examples" / "orchestrator-image-map.yaml").images["openindiana-hipster"]
    assert entry.source.endswith(".img.zstd")
    packed = zstandard.ZstdCompressor().compress(DISK)
    url = server.serve("/OI-hipster-cloudimage.img.zstd", packed)
    image = replace(entry, source=url, local_path=tmp_path / entry.local_path.name)
    found = obtain(image, lambda _count, _size: None).ready
    assert found is not None
    assert (found.format, found.virtual_size) == (DiskFormat.RAW, len(DISK))
    assert found.digest == f"sha256:{hashlib.sha256(packed).hexdigest()}"
    assert image.local_path.read_bytes() == DISK
    assert image.local_path.stat().st_blocks * 512 < 2 * MIB
