import os
from pathlib import Path
from random import Random

import pytest

from solstice.images.sparse import Sparse

KIB = 1 << 10
MIB = 1 << 20
RANDOM = Random(11)  # noqa: S311 - content, not a secret


def written(path: Path, content: bytes, sizes: list[int]) -> os.stat_result:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    try:
        disk = Sparse(descriptor)
        at = turn = 0
        while at < len(content):
            piece = content[at : at + sizes[turn % len(sizes)]]
            disk.write(piece)
            at, turn = at + len(piece), turn + 1
        disk.finish()
        assert disk.size == len(content)
        return os.fstat(descriptor)
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("sizes", [[MIB], [1], [1000], [64 * KIB, 1, 4095], [3 * MIB]])
def test_pieces_of_any_size_are_the_content(tmp_path: Path, sizes: list[int]) -> None:
    blocks = [bytes(4096), RANDOM.randbytes(4096), bytes(33 * KIB), b"\0" * 100 + b"x"]
    content = b"".join(RANDOM.choices(blocks, k=20 if sizes == [1] else 200))
    written(tmp_path / "disk", content, sizes)
    assert (tmp_path / "disk").read_bytes() == content


def test_zeros_are_holes_also_at_the_end(tmp_path: Path) -> None:
    noise = RANDOM.randbytes(64 * KIB)
    content = noise + bytes(8 * MIB) + noise + bytes(8 * MIB)
    assert written(tmp_path / "disk", content, [MIB]).st_blocks * 512 <= 4 * len(noise)
    assert (tmp_path / "disk").read_bytes() == content


def test_a_disk_of_nothing_but_zeros_takes_nothing(tmp_path: Path) -> None:
    facts = written(tmp_path / "disk", bytes(4 * MIB), [MIB])
    assert (facts.st_size, facts.st_blocks) == (4 * MIB, 0)


def test_an_empty_disk_is_an_empty_file(tmp_path: Path) -> None:
    assert written(tmp_path / "disk", b"", [MIB]).st_size == 0
