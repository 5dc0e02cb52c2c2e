"""One pull in a test: an image whose place is a folder of the test's own, its part, and what comes out."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from random import Random

from solstice.images.pipeline import Origin, Watch, drop, pull
from solstice.model import Compression, Image

MIB = 1 << 20
# half of it noise, so that what is fetched is large as well
DISK = b"\xeb\x63\x90" + Random(5).randbytes(3 * MIB) + bytes(3 * MIB) + b"end"  # noqa: S311 - content


def unwatched(count: int, size: int | None) -> None:
    """Nobody looks."""


class Puller:
    """`image` may be replaced between two pulls; `output` is what the last one wrote."""

    def __init__(self, folder: Path, source: str, decompress: Compression = Compression.NONE) -> None:
        self.image = Image("tiny", source, folder / "tiny.img", decompress)
        self.part = folder / "tiny.part"
        self.output = folder / "tiny.stage"

    def wanting(self, **keys: object) -> Puller:
        """This one, with other keys in the image map."""
        self.image = replace(self.image, **keys)  # type: ignore[arg-type]
        return self

    def pull(self, known: Origin | None = None, watch: Watch = unwatched) -> Origin | None:
        descriptor = os.open(self.output, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        try:
            return pull(self.image, self.part, descriptor, watch, known)
        finally:
            os.close(descriptor)

    def content(self) -> bytes:
        """What a pull that must go well writes."""
        assert self.pull() is not None
        return self.output.read_bytes()

    def left(self) -> set[str]:
        """What a later pull would find."""
        return {path.name for path in self.part.parent.glob(f"{self.part.name}*")}

    def drop(self) -> None:
        drop(self.part)
