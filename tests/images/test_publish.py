import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from solstice.errors import InfraError
from solstice.images import publish

MIB = 1 << 20


def put(target: Path, *pieces: bytes) -> None:
    with publish.stage(target) as staged:
        for piece in pieces:
            staged.write(piece)
        staged.finish()
        staged.publish()


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_a_published_file_is_whole_and_read_only_and_alone(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "er" / "base.img"
    put(target, b"one", b"two")
    assert target.read_bytes() == b"onetwo"
    assert stat.S_IMODE(target.stat().st_mode) == 0o444
    assert target.stat().st_nlink == 1
    assert names(target.parent) == ["base.img"]


def test_zeros_become_holes_and_stay_zeros(tmp_path: Path) -> None:
    target = tmp_path / "base.img"
    pieces = [b"a" * MIB, bytes(8 * MIB), b"b" * MIB, bytes(8 * MIB + 5)]
    put(target, *pieces)
    assert target.read_bytes() == b"".join(pieces)
    assert target.stat().st_blocks * 512 < 3 * MIB


def test_what_was_put_there_meanwhile_stays(tmp_path: Path) -> None:
    target = tmp_path / "base.img"
    with publish.stage(target) as staged:
        staged.write(b"ours")
        staged.finish()
        target.write_bytes(b"the operator's")
        staged.publish()
    assert target.read_bytes() == b"the operator's"
    assert names(tmp_path) == ["base.img"]


def test_an_abandoned_stage_leaves_nothing(tmp_path: Path) -> None:
    target = tmp_path / "base.img"

    def give_up() -> None:
        with publish.stage(target) as staged:
            staged.write(b"half")
            raise KeyError

    with pytest.raises(KeyError):
        give_up()
    assert names(tmp_path) == []


WRITER = """
import sys
from pathlib import Path
from solstice.images import publish
with publish.stage(Path(sys.argv[1])) as staged:
    staged.write(b"the other's")
    print("begun", flush=True)
    sys.stdin.read()
"""


def test_a_stage_in_use_is_not_touched_and_a_killed_one_is_taken_over(tmp_path: Path) -> None:
    target, leftover = tmp_path / "base.img", tmp_path / ".base.img.stage"
    argv = [sys.executable, "-c", WRITER, str(target)]
    root = Path(publish.__file__).parents[2]
    with subprocess.Popen(argv, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == b"begun\n"
            with pytest.raises(InfraError, match="another process"), publish.stage(target):
                pytest.fail("two writers")
            publish.drop_leftover(target)
            assert leftover.read_bytes() == b"the other's"
        finally:
            other.kill()
    assert names(tmp_path) == [".base.img.stage"]
    put(target, b"ours")
    assert target.read_bytes() == b"ours"
    assert names(tmp_path) == ["base.img"]


def test_a_second_name_of_an_image_is_dropped_and_not_emptied(tmp_path: Path) -> None:
    """A writer was killed between giving the file its name and dropping the stage's; then the image was moved."""
    moved, target = tmp_path / "moved.img", tmp_path / "base.img"
    put(moved, b"an image")
    os.link(moved, tmp_path / ".base.img.stage")
    put(target, b"new")
    assert moved.read_bytes() == b"an image"
    assert target.read_bytes() == b"new"
    assert names(tmp_path) == ["base.img", "moved.img"]


def test_a_leftover_beside_an_image_goes(tmp_path: Path) -> None:
    target = tmp_path / "base.img"
    put(target, b"an image")
    os.link(target, tmp_path / ".base.img.stage")
    publish.drop_leftover(target)
    assert names(tmp_path) == ["base.img"]
    publish.drop_leftover(target)


def test_a_symbolic_link_in_the_stage_s_place_is_not_followed(tmp_path: Path) -> None:
    victim, target = tmp_path / "victim", tmp_path / "base.img"
    victim.write_bytes(b"precious")
    (tmp_path / ".base.img.stage").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"), publish.stage(target):
        pytest.fail("followed")
    assert victim.read_bytes() == b"precious"
