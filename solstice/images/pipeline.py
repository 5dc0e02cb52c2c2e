"""From a source to the bytes of a disk: a plain stand-in of the real pipeline, which takes its place."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from solstice.images.decompress import blocks
from solstice.images.fetch import Source, open_source
from solstice.model import Image

Watch = Callable[[int, int | None], None]


@dataclass(frozen=True, slots=True)
class Origin:
    """What came from a source; `digest` is `sha256:HEX` of the bytes as they came."""

    digest: str
    size: int
    etag: str = ""
    modified: str = ""


def pull(image: Image, part: Path, output: int, watch: Watch, known: Origin | None = None) -> Origin | None:
    """Fill `output`, the descriptor of an empty file.  None if the source is still what `known` says."""
    taken = hashlib.sha256()
    size = 0

    def seen(source: Source) -> Iterator[bytes]:
        nonlocal size
        watch(0, source.size)
        for chunk in source.chunks:
            taken.update(chunk)
            size += len(chunk)
            yield chunk
            watch(size, source.size)

    with open_source(image.source) as source:
        at = 0
        for block in blocks(seen(source), image.decompress):
            if block.strip(b"\0"):
                os.pwrite(output, block, at)
            at += len(block)
        os.ftruncate(output, at)
    origin = Origin(f"sha256:{taken.hexdigest()}", size)
    return None if known is not None and origin.digest == known.digest else origin


def drop(part: Path) -> None:
    """Forget the compressed bytes."""
    part.unlink(missing_ok=True)
