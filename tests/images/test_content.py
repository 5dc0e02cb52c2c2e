import os
from pathlib import Path

import pytest

from solstice.images import content

MIB = 1 << 20
BLOCK = 64 << 10


def quiet(_at: int, _size: int | None) -> None:
    """Nobody looks."""


def digest(path: Path, *, from_disk: bool = False) -> str:
    return content.digest(path, quiet, from_disk=from_disk)


@pytest.fixture
def sparse(tmp_path: Path) -> Path:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.write(b"a" * MIB)
        file.seek(40 * MIB + 5)
        file.write(b"b")
        file.truncate(64 * MIB + 7)
    return path


def test_holes_and_zeros_are_the_same(sparse: Path, tmp_path: Path) -> None:
    filled = tmp_path / "filled"
    filled.write_bytes(sparse.read_bytes())
    assert filled.stat().st_blocks > sparse.stat().st_blocks
    assert digest(filled) == digest(sparse) == digest(sparse, from_disk=True)


@pytest.mark.parametrize("at", [0, MIB - 1, MIB, 40 * MIB, 40 * MIB + 5, 64 * MIB + 6])
def test_a_byte_that_differs_anywhere_is_seen(sparse: Path, at: int) -> None:
    before = digest(sparse)
    with sparse.open("r+b") as file:
        file.seek(at)
        file.write(b"x")
    assert digest(sparse) != before


def test_a_block_that_has_moved_or_a_file_that_has_grown_is_another(sparse: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_bytes(b"x" * BLOCK + bytes(BLOCK))
    second.write_bytes(bytes(BLOCK) + b"x" * BLOCK)
    assert digest(first) != digest(second)
    before = digest(sparse)
    os.truncate(sparse, 65 * MIB)
    assert digest(sparse) != before


def test_of_an_empty_disk_of_a_tebibyte_nothing_is_read(tmp_path: Path) -> None:
    path = tmp_path / "empty"
    path.touch()
    os.truncate(path, 1 << 40)
    seen: list[int] = []
    assert content.digest(path, lambda at, _size: seen.append(at)).startswith("blocks-sha256:")
    assert seen == []


def test_how_far_it_is_is_told_and_can_end_it(sparse: Path) -> None:
    def give_up(at: int, size: int | None) -> None:
        assert size == 64 * MIB + 7
        if at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        content.digest(sparse, give_up)
