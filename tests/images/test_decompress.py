import bz2
import gzip
import io
import lzma
import resource
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
import zstandard

from solstice.errors import Cause, InfraError
from solstice.images.decompress import BLOCK, HEAD, pieces, sniff
from solstice.images.intake import Spoiled
from solstice.model import Compression

MEMORY = 128 << 20
NOISE = Random(7).randbytes(3 * BLOCK + 17)  # noqa: S311 - content, not a secret


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(data)


PACK: dict[Compression, Callable[[bytes], bytes]] = {
    Compression.ZSTD: zstd,
    Compression.GZIP: gzip.compress,
    Compression.XZ: lzma.compress,
    Compression.BZIP2: bz2.compress,
}
PACKED = pytest.mark.parametrize("compression", list(PACK))


class Few:
    """Gives at most `size` bytes at a time."""

    def __init__(self, data: bytes, size: int) -> None:
        self._file = io.BytesIO(data)
        self._size = size

    def read(self, count: int, /) -> bytes:
        return self._file.read(min(count, self._size))


def unpack(data: bytes, compression: Compression, size: int = 64 << 10, memory: int = MEMORY) -> bytes:
    found = list(pieces(Few(data, size), compression, memory))
    assert all(0 < len(piece) <= BLOCK for piece in found)
    return b"".join(found)


@PACKED
@pytest.mark.parametrize("size", [1, 7, 1024, 1 << 20])
def test_many_frames_members_or_streams_are_one_content(compression: Compression, size: int) -> None:
    pack = PACK[compression]
    begin = NOISE[:3000] if size < 1024 else NOISE
    assert unpack(pack(begin) + pack(b"") + pack(b"end"), compression, size) == begin + b"end"


@pytest.mark.parametrize("size", [1, 1 << 20])
def test_skippable_frames_are_skipped(size: int) -> None:
    skippable = b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"pzst"
    data = skippable + zstd(NOISE[:1000]) + skippable + zstd(NOISE[1000:2000]) + skippable
    assert sniff(data[:HEAD]) is Compression.ZSTD
    assert unpack(data, Compression.ZSTD, size) == NOISE[:2000]


@pytest.mark.parametrize("options", [[], ["--no-check", "--single-thread"], ["--long=27"], ["-1", "--no-content-size"]])
def test_the_zstd_program_s_output_is_read(tmp_path: Path, options: list[str]) -> None:
    content = NOISE + bytes(BLOCK) + b"abc" * BLOCK
    (tmp_path / "plain").write_bytes(content)
    subprocess.run(["zstd", "-q", *options, tmp_path / "plain"], check=True)
    packed = (tmp_path / "plain.zst").read_bytes()
    assert unpack(packed, Compression.ZSTD) == content
    with pytest.raises(Spoiled, match="ends too early"):
        unpack(packed[:-1], Compression.ZSTD)


def test_frames_with_every_kind_of_header_are_understood() -> None:
    """All ways to say the content's size, with and without a checksum; one byte at a time, so that each is split."""
    data, content = b"", b""
    for length in (0, 1, 255, 256, 65791, 65792):
        for checksum, size in ((True, True), (False, True), (True, False)):
            packer = zstandard.ZstdCompressor(write_checksum=checksum, write_content_size=size)
            data += packer.compress(NOISE[:length])
            content += NOISE[:length]
    assert unpack(data, Compression.ZSTD, 1) == content


@PACKED
def test_how_it_is_compressed_is_known_by_its_first_bytes(compression: Compression) -> None:
    assert sniff(PACK[compression](NOISE)[:HEAD]) is compression
    assert sniff(PACK[compression](b"")[:HEAD]) is compression


@pytest.mark.parametrize("head", [b"", b"BZ", b"BZh9 a disk", b"QFI\xfb\0\0\0\3", b"\xeb\x63\x90", bytes(HEAD)])
def test_what_is_not_compressed_is_known_as_that(head: bytes) -> None:
    assert sniff(head) is Compression.NONE


@PACKED
@pytest.mark.parametrize("missing", [1, 5, 1000, 2 * BLOCK])
def test_a_cut_stream_is_an_error(compression: Compression, missing: int) -> None:
    pack = PACK[compression]
    with pytest.raises(Spoiled, match="ends too early") as caught:
        unpack((pack(NOISE[:100]) + pack(NOISE))[:-missing], compression)
    assert "replace it" in caught.value.remedy


@PACKED
def test_an_empty_stream_is_an_error(compression: Compression) -> None:
    with pytest.raises(Spoiled, match="ends too early"):
        unpack(b"", compression)


@PACKED
def test_a_damaged_stream_is_an_error(compression: Compression) -> None:
    data = bytearray(PACK[compression](NOISE))
    data[2 * BLOCK] ^= 1
    with pytest.raises(Spoiled, match="damaged"):
        unpack(bytes(data), compression)


@PACKED
def test_rubbish_after_the_last_frame_is_an_error(compression: Compression) -> None:
    with pytest.raises(Spoiled, match="damaged"):
        unpack(PACK[compression](NOISE) + b"rubbish" * 4, compression)


@pytest.mark.parametrize("compression", [Compression.GZIP, Compression.XZ])
@pytest.mark.parametrize("size", [1, 1 << 20])
def test_padding_with_zeros_is_passed_over(compression: Compression, size: int) -> None:
    pack = PACK[compression]
    data = pack(NOISE[:100]) + bytes(512) + pack(NOISE[100:200]) + bytes(4)
    assert unpack(data, compression, size) == NOISE[:200]


@PACKED
def test_a_source_that_is_compressed_otherwise_is_told_so(compression: Compression) -> None:
    with pytest.raises(Spoiled, match=f"not {compression}") as caught:
        unpack(b"\xeb" + bytes(5000), compression)
    assert "decompress: auto" in caught.value.remedy


@PACKED
def test_a_dense_stream_takes_little_memory(compression: Compression) -> None:
    """128 MiB of zeros in very few bytes; unpacked in one go they would be in memory at once."""
    zeros, times = bytes(1 << 24), 8
    packers: dict[Compression, Callable[[], Any]] = {
        Compression.ZSTD: zstandard.ZstdCompressor().compressobj,
        Compression.GZIP: lambda: zlib.compressobj(wbits=31),
        Compression.XZ: lambda: lzma.LZMACompressor(preset=0),
        Compression.BZIP2: bz2.BZ2Compressor,
    }
    packer = packers[compression]()
    data = b"".join([packer.compress(zeros) for _ in range(times)]) + packer.flush()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    count = sum(len(piece) for piece in pieces(Few(data, 1 << 20), compression, MEMORY))
    assert count == len(zeros) * times
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 << 10  # KiB


@pytest.mark.parametrize("streamed", [True, False])
def test_a_zstd_frame_that_wants_more_memory_than_it_may_is_refused(streamed: bool) -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=24, enable_ldm=False)
    packer = zstandard.ZstdCompressor(compression_params=parameters)
    if streamed:
        stream = packer.compressobj()
        data = stream.compress(NOISE) + stream.flush()
    else:
        data = packer.compress(bytes(16 << 20))  # one segment: the window is the content
    assert unpack(data, Compression.ZSTD, memory=16 << 20)
    with pytest.raises(InfraError, match="takes 16 MiB of memory, and 8 MiB are allowed") as caught:
        unpack(data, Compression.ZSTD, memory=8 << 20)
    assert not isinstance(caught.value, Spoiled)
    assert caught.value.cause is Cause.IMAGE
    assert "`decoder_memory`" in caught.value.remedy


def test_a_larger_window_than_the_library_s_own_limit_can_be_allowed() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=28, hash_log=6, chain_log=6, enable_ldm=False)
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    data = stream.compress(NOISE) + stream.flush()
    assert unpack(data, Compression.ZSTD, memory=256 << 20) == NOISE


def test_an_xz_stream_that_wants_more_memory_than_it_may_is_refused() -> None:
    data = lzma.compress(NOISE, preset=9)
    with pytest.raises(InfraError, match="16 MiB are allowed") as caught:
        unpack(data, Compression.XZ, memory=16 << 20)
    assert "`decoder_memory`" in caught.value.remedy


def test_none_passes_the_content_through() -> None:
    assert unpack(NOISE, Compression.NONE, 999) == NOISE
