import hashlib
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
import zstandard

from solstice.errors import InfraError
from solstice.images.decompress import BLOCK, blocks
from solstice.model import Compression

NOISE = Random(7).randbytes(3 * BLOCK + 17)  # noqa: S311 - content, not a secret


def packed(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(data)


def cut(data: bytes, size: int) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


def unpack(data: bytes, size: int = 64 << 10) -> bytes:
    return b"".join(blocks(cut(data, size), Compression.ZSTD))


@pytest.mark.parametrize("size", [7, 1024, 1025, 1 << 20])
def test_many_frames_are_one_content(size: int) -> None:
    skippable = b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"pzst"
    data = skippable + packed(NOISE[:1000]) + skippable + packed(b"") + packed(NOISE[1000:])
    assert unpack(data, size) == NOISE


def test_the_zstd_program_s_output_is_read(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(NOISE)
    subprocess.run(["zstd", "-q", tmp_path / "plain"], check=True)
    assert unpack((tmp_path / "plain.zst").read_bytes()) == NOISE


@pytest.mark.parametrize("compression", list(Compression))
def test_blocks_are_whole_but_for_the_last(compression: Compression) -> None:
    data = packed(NOISE) if compression is Compression.ZSTD else NOISE
    result = list(blocks(cut(data, 1000), compression))
    assert [len(block) for block in result] == [BLOCK, BLOCK, BLOCK, 17]
    assert b"".join(result) == NOISE


@pytest.mark.parametrize("missing", [1, 5, 1000, 2 * BLOCK])
def test_a_cut_stream_is_an_error(missing: int) -> None:
    whole = packed(NOISE[:100]) + packed(NOISE)
    with pytest.raises(InfraError, match="ends too early"):
        unpack(whole[:-missing])


def test_an_empty_stream_is_an_error() -> None:
    with pytest.raises(InfraError, match="ends too early"):
        unpack(b"")


def test_a_damaged_stream_is_an_error() -> None:
    data = bytearray(packed(NOISE))
    data[BLOCK] ^= 1
    with pytest.raises(InfraError, match="damaged"):
        unpack(bytes(data))


def test_rubbish_after_the_last_frame_is_an_error() -> None:
    with pytest.raises(InfraError, match="damaged"):
        unpack(packed(NOISE) + b"rubbish")


def test_a_source_that_is_not_zstd_is_told_so() -> None:
    with pytest.raises(InfraError, match="not zstd") as caught:
        unpack(b"\xeb" + bytes(5000))
    assert "decompress: none" in caught.value.remedy


def test_a_dense_stream_takes_little_memory() -> None:
    """2 GiB of zeros are 64 KiB of zstd; unpacked in one go they would be 2 GiB of memory."""
    packer = zstandard.ZstdCompressor().compressobj()
    data = b"".join(packer.compress(bytes(1 << 24)) for _ in range(128)) + packer.flush()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    count = sum(len(block) for block in blocks(iter([data]), Compression.ZSTD))
    assert count == 2 << 30
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 160 << 10  # KiB


def test_a_frame_that_wants_a_huge_window_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=28, enable_ldm=False)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    with pytest.raises(InfraError, match="memory"):
        unpack(packer.compress(NOISE) + packer.flush())


def test_none_passes_the_content_through() -> None:
    plain = b"".join(blocks(cut(NOISE, 999), Compression.NONE))
    assert hashlib.sha256(plain).digest() == hashlib.sha256(NOISE).digest()
