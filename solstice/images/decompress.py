"""From compressed bytes to plain ones: zstd, gzip, xz, bzip2, or none; also many frames or streams in a row.

Memory is bounded whatever comes: each decoder is asked for at most `BLOCK` bytes at a time and is held to a memory
limit.  A stream that is cut, damaged, or followed by rubbish is an error.
"""

from __future__ import annotations

import bz2
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import zstandard

from solstice.images.intake import Spoiled
from solstice.images.zstdframes import Frames, too_large
from solstice.model import Compression

BLOCK = 128 << 10  # larger ones are slower: the processor's cache does not hold them
HEAD = 10  # bytes that `sniff` wants to see

_FEED = 128 << 10
_MAGIC = {
    Compression.ZSTD: rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18",
    Compression.GZIP: rb"\x1f\x8b\x08",
    Compression.XZ: rb"\xfd7zXZ\0",
    Compression.BZIP2: rb"BZh[1-9](1AY&SY|\x17\x72\x45\x38\x50\x90)",
}


class Source(Protocol):
    """Where compressed bytes come from."""

    def read(self, count: int, /) -> bytes:
        """Between 1 and `count` bytes; none at the end."""


class _Decoder(Protocol):
    """What bz2 and lzma have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


def sniff(head: bytes) -> Compression:
    """How a content with these first `HEAD` bytes is compressed, `NONE` if not in a way that is known here."""
    found = (kind for kind, magic in _MAGIC.items() if re.match(magic, head, re.DOTALL))
    return next(found, Compression.NONE)


def pieces(source: Source, compression: Compression, memory: int) -> Iterator[bytes]:
    """The plain content in pieces of at most `BLOCK` bytes.  `memory` is how many bytes a decoder may take.

    Raises `Spoiled` for a content that is damaged or cut, `InfraError` for one that wants more memory.
    """
    match compression:
        case Compression.ZSTD:
            return _zstd(source, memory)
        case Compression.GZIP:
            return _streams(source, _Gzip, memory, "gzip")
        case Compression.XZ:
            return _streams(source, lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=memory), memory, "xz")
        case Compression.BZIP2:
            return _streams(source, bz2.BZ2Decompressor, memory, "bzip2")
        case _:
            return iter(lambda: source.read(BLOCK), b"")


def _zstd(source: Source, memory: int) -> Iterator[bytes]:
    frames: Any = Frames(source.read, memory)
    # The library has its own idea of the largest window, and of the smallest limit.
    decoder = zstandard.ZstdDecompressor(max_window_size=min(max(memory, 1 << 10), 1 << 31))
    reader: Any = decoder.stream_reader(frames, read_size=_FEED, read_across_frames=True)
    begun = False
    try:
        while piece := reader.read(BLOCK):
            begun = True
            yield piece
    except zstandard.ZstdError as error:
        raise _damaged(str(error), begun, "zstd") from None
    if not frames.whole:
        raise _cut()


def _streams(source: Source, make: Callable[[], _Decoder], memory: int, name: str) -> Iterator[bytes]:
    decoder, fresh, begun, ended, left = make(), True, False, False, b""
    while True:
        if not left and decoder.needs_input and not ended:
            left = source.read(_FEED)
            ended = not left
        if fresh and begun:
            left = left.lstrip(b"\0")  # padding is allowed between two streams
        if fresh and ended and not left:
            break
        fresh = fresh and not left
        piece = _step(decoder, left, memory, begun, name)
        left = b""
        if piece:
            begun = True
            yield piece
        if decoder.eof:
            decoder, fresh, begun, left = make(), True, True, decoder.unused_data
        elif ended and not piece:
            raise _cut()
    if not begun:
        raise _cut()


def _step(decoder: _Decoder, data: bytes, memory: int, begun: bool, name: str) -> bytes:
    try:
        return decoder.decompress(data, BLOCK)
    except lzma.LZMAError as error:
        if "emory usage limit" in str(error):
            raise too_large("more than that", memory) from None
        raise _damaged(str(error), begun, name) from None
    except (zlib.error, OSError, ValueError) as error:
        raise _damaged(str(error), begun, name) from None


class _Gzip:
    """zlib's decoder with the manners of the others."""

    def __init__(self) -> None:
        self._decoder = zlib.decompressobj(16 + zlib.MAX_WBITS)

    @property
    def eof(self) -> bool:
        return self._decoder.eof

    @property
    def needs_input(self) -> bool:
        return not self._decoder.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._decoder.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        return self._decoder.decompress(self._decoder.unconsumed_tail + data, max(0, max_length))


def _cut() -> Spoiled:
    return Spoiled("the compressed data ends too early", "the file at `source` is cut: replace it")


def _damaged(text: str, begun: bool, name: str) -> Spoiled:
    if begun:
        return Spoiled(f"the compressed data is damaged: {text}", "the file at `source` is damaged: replace it")
    return Spoiled(f"the source is not {name}: {text}", "set `decompress: auto` or `none` in the image map")
