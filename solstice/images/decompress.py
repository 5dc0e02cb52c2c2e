"""From the bytes of a source to the bytes of a disk.  Pure: iterators in, iterators out.

Memory is bounded whatever comes: the decoder is fed so little at a time that even the densest stream (32 KiB for one
byte) grows to a few tens of MiB, and a frame that wants a window of more than 128 MiB is refused by the library.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import zstandard

from solstice.errors import Cause, InfraError
from solstice.model import Compression

BLOCK = 1 << 20

_FEED = 1 << 10


def blocks(chunks: Iterable[bytes], compression: Compression) -> Iterator[bytes]:
    """The content in blocks of 1 MiB, the last one shorter.  Raises `InfraError` if it is damaged or cut."""
    plain = _zstd(chunks) if compression is Compression.ZSTD else chunks
    rest = bytearray()
    for piece in plain:
        rest += piece
        while len(rest) >= BLOCK:
            yield bytes(rest[:BLOCK])
            del rest[:BLOCK]
    if rest:
        yield bytes(rest)


def _zstd(chunks: Iterable[bytes]) -> Iterator[bytes]:
    # One decoder per frame: only so does the library tell a stream that is cut from one that ends.  pzstd writes many
    # frames, and skippable ones between them.
    decoder = zstandard.ZstdDecompressor()
    frame = decoder.decompressobj()
    begun = whole = False
    for piece in _pieces(chunks):
        left = piece
        while left:
            try:
                yield frame.decompress(left)
            except zstandard.ZstdError as error:
                raise _error(str(error), begun) from None
            begun, whole, left = True, frame.eof, frame.unused_data
            if whole:
                frame = decoder.decompressobj()
    if not whole:
        raise InfraError(Cause.IMAGE, "the compressed data ends too early", "the file at `source` is cut: replace it")


def _pieces(chunks: Iterable[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        for start in range(0, len(chunk), _FEED):
            yield chunk[start : start + _FEED]


def _error(text: str, begun: bool) -> InfraError:
    if begun:
        return InfraError(Cause.IMAGE, f"the compressed data is damaged: {text}", "the file at `source` is damaged")
    return InfraError(Cause.IMAGE, f"the source is not zstd: {text}", "set `decompress: none` in the image map")
