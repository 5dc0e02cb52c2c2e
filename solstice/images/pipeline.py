"""From a source to the bytes of a disk: fetched, hashed, decompressed and written at the same time, in bounded memory.

`obtain` calls it, holds the image's lock and owns the output; publishing is not done here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from solstice.model import Image

# The bytes that have come, and how many there will be (None: not known).  Whatever it raises ends the pull.
Watch = Callable[[int, int | None], None]


@dataclass(frozen=True, slots=True)
class Origin:
    """What a source was when it was read: enough to ask later whether it has changed.

    `digest` is `sha256:HEX` of the bytes as they came, compressed: what an operator compares with SHA256SUMS; `size`
    their number.  `modified` is Last-Modified as the server wrote it, for a file its mtime in ns and its size.
    """

    digest: str
    size: int
    etag: str = ""
    modified: str = ""


def pull(image: Image, part: Path, output: int, watch: Watch, known: Origin | None = None) -> Origin | None:
    """Fill `output`, the descriptor of an empty file, with the disk that `image.source` has.

    None if the source still is what `known` says; then `output` is untouched.  `part` is where the compressed bytes
    stay until `drop(part)`: a later call reads them from disk again and fetches only the rest.

    Raises `InfraError` (infra.image, infra.disk_full), `OSError` of `output`, and what `watch` raises.
    """
    raise NotImplementedError


def drop(part: Path) -> None:
    """Remove what `pull` has kept at `part`, if anything."""
    for path in (part, part.with_name(part.name + ".json")):
        path.unlink(missing_ok=True)
