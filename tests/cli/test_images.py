"""`solstice images`, as an operator runs it: on files, with and without a supervisor to tell."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from solstice.host import files
from tests.cli.supervisors import ROOT, Supervisor, arguments

MIB = 1 << 20
DISK = b"\xeb" * MIB + bytes(3 * MIB)
NEWER = b"\xec" * MIB + bytes(3 * MIB)
DAY = 86400


class Place:
    """A host with the image `tiny`, whose source is a file, and what the commands say there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.source = folder / "source"
        self.source.write_bytes(DISK)
        self.link = folder / "images" / "tiny.img"
        self.versions = folder / "images" / "versions" / "tiny"
        self.map = folder / "map.yaml"
        self.write_map()

    def write_map(self, *lines: str) -> None:
        head = "default_label: tiny\nimages:\n  tiny:\n    source: source\n    local_path: images/tiny.img\n"
        self.map.write_text(head + "".join(f"    {line}\n" for line in lines))

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        places = ["--config", str(self.map), "--state-dir", str(self.folder / "state")]
        return subprocess.run(
            [*arguments(self.folder, "images", *words), *places],
            cwd=ROOT,
            env={"PATH": os.environ["PATH"]},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def said(self, *words: str) -> str:
        done = self.run(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def refused(self, *words: str) -> str:
        done = self.run(*words)
        assert done.returncode in (1, 2)
        assert "Traceback" not in done.stderr
        return done.stderr

    def two_versions(self) -> tuple[Path, Path]:
        """Pull one version and refresh to another: the older and the newer file."""
        self.said("pull")
        old = self.link.resolve()
        self.source.write_bytes(NEWER)
        self.said("refresh")
        return old, self.link.resolve()

    def settle(self) -> None:
        """Let the newest version have been there for a while."""
        os.utime(self.link, (1.0, 1.0), follow_symlinks=False)

    def list(self) -> list[dict[str, object]]:
        rows: list[dict[str, object]] = json.loads(self.said("list", "--json"))
        return rows


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def test_pull_makes_an_image_ready_and_says_which(place: Place) -> None:
    assert place.said("pull", "tiny") == f"tiny: ready, {digest(DISK)} at {place.link.resolve()}\n"
    assert place.link.read_bytes() == DISK
    assert place.said("pull").startswith("tiny: ready")


def test_an_image_that_is_not_in_the_map_is_an_error_with_a_remedy(place: Place) -> None:
    assert "it is not in the image map" in place.refused("pull", "tinny")
    assert "did you mean tiny" in place.refused("rollback", "tinny")


def test_an_image_that_cannot_be_had_says_why_and_the_others_are_pulled(place: Place) -> None:
    place.map.write_text(place.map.read_text() + "  none:\n    source: nowhere\n    local_path: none.img\n")
    done = place.run("pull", "none", "tiny")
    assert done.returncode == 1
    assert "solstice: none: " in done.stderr
    assert "no such file" in done.stderr.lower()
    assert "tiny: ready" in done.stdout


def test_list_shows_each_version_and_what_it_is(place: Place) -> None:
    (missing,) = place.list()
    assert (missing["state"], missing["digest"]) == ("missing", None)
    place.two_versions()
    newer, older = place.list()
    assert (newer["state"], newer["digest"], newer["in_use"]) == ("current", digest(NEWER), False)
    assert (older["state"], older["digest"]) == ("older", digest(DISK))
    assert newer["virtual_size"] == len(NEWER)
    text = place.said("list")
    assert digest(NEWER).partition(":")[2][:12] in text
    assert "current" in text


def test_list_and_refresh_know_an_operator_s_file(place: Place) -> None:
    place.link.parent.mkdir()
    place.link.write_bytes(DISK)
    assert "an operator's file" in place.said("list")
    said = place.refused("refresh")
    assert "never overwritten" in said
    assert "move it away" in said
    assert "put there by an operator" in place.said("verify")
    assert place.link.read_bytes() == DISK


def test_refresh_says_when_nothing_is_new(place: Place) -> None:
    place.said("pull")
    assert place.said("refresh").startswith("tiny: nothing new, ready")
    place.source.write_bytes(NEWER)
    assert place.said("refresh") == f"tiny: ready, {digest(NEWER)} at {place.link.resolve()}\n"


def test_rollback_goes_back_and_refresh_stays_there(place: Place) -> None:
    old, new = place.two_versions()
    said = place.said("rollback", "tiny", "--because", "it panics")
    assert f"tiny: {digest(DISK)} is used again" in said
    assert place.link.resolve() == old
    assert "nothing new" in place.said("refresh")
    assert "refused: it panics" in place.said("list")
    place.said("refresh", "--again")
    assert place.link.resolve() == new


def test_rollback_without_an_earlier_version_is_refused(place: Place) -> None:
    place.said("pull")
    assert "there is no earlier version" in place.refused("rollback", "tiny")


def test_a_version_that_must_boot_first_waits_for_the_supervisor(place: Place) -> None:
    place.write_map("boot_test: true")
    assert "once the supervisor has booted a machine from it" in place.said("pull")
    assert not os.path.lexists(place.link)
    assert [row["state"] for row in place.list()] == ["missing", "to be tested"]


def test_verify_names_the_damaged_file_alone(place: Place) -> None:
    old, new = place.two_versions()
    assert place.said("verify") == f"tiny: ok: {new}\ntiny: ok: {old}\n"
    old.chmod(0o644)
    with old.open("r+b") as file:
        file.seek(len(DISK) - 1)  # in a hole
        file.write(b"x")
    done = place.run("verify")
    assert done.returncode == 1
    assert f"tiny: ok: {new}\n" in done.stdout
    assert f"tiny: damaged: {old} does not hold what was published" in done.stdout


def test_prune_removes_what_is_old_and_never_the_current_one(place: Place) -> None:
    old, new = place.two_versions()
    place.settle()
    assert place.said("prune", "--older-than", "1d") == ""
    assert place.said("prune", "--older-than", "0") == f"tiny: {old} removed\n"
    assert new.exists()
    assert place.said("prune", "--older-than", "0") == ""
    assert {path.name for path in place.versions.iterdir()} == {".lock", ".change", new.name, f"{new.name}.json"}


def test_prune_makes_room_on_the_disk(place: Place) -> None:
    old, _new = place.two_versions()
    place.settle()
    assert place.said("prune", "--keep-free", "1GiB") == ""
    assert place.said("prune", "--keep-free", "1048576GiB") == f"tiny: {old} removed\n"


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ((), "needs --older-than, --keep-free or both"),
        (("--older-than", "7"), "is no time"),
        (("--keep-free", "7"), "not a possible amount"),
    ],
)
def test_prune_without_a_measure_is_refused(place: Place, words: tuple[str, ...], why: str) -> None:
    assert why in place.refused("prune", *words)


def test_prune_leaves_what_another_has_just_replaced(place: Place) -> None:
    old, _new = place.two_versions()
    assert "stays: another version has taken its place just now" in place.said("prune", "--older-than", "0")
    assert old.exists()


def test_prune_leaves_a_version_that_an_overlay_stands_on(place: Place) -> None:
    old, _new = place.two_versions()
    place.settle()
    vm = place.folder / "state" / "jobs" / "7f3a91c2" / "1" / "vm"
    vm.mkdir(parents=True)
    argv = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(old), str(vm / "overlay.qcow2")]
    subprocess.run(argv, check=True)
    assert [row["in_use"] for row in place.list()] == [False, True]
    assert "stays: a virtual machine stands on it" in place.said("prune", "--older-than", "0")
    (vm / "overlay.qcow2").unlink()
    assert "removed" in place.said("prune", "--older-than", "0")


def test_prune_leaves_a_version_that_a_worker_is_about_to_stand_on(place: Place) -> None:
    old, _new = place.two_versions()
    place.settle()
    pin = files.pin(old)
    assert "stays: a virtual machine stands on it" in place.said("prune", "--older-than", "0")
    os.close(pin)
    assert "removed" in place.said("prune", "--older-than", "0")


def test_a_refused_version_that_was_pruned_does_not_come_back(place: Place) -> None:
    _old, new = place.two_versions()
    place.said("rollback", "tiny")
    place.settle()
    assert f"tiny: {new} removed" in place.said("prune", "--older-than", "0")
    assert "nothing new" in place.said("refresh")
    place.said("refresh", "--again")
    assert place.link.resolve() == new
    assert new.read_bytes() == NEWER


def test_a_supervisor_that_runs_is_told_to_look_again(place: Place, answering: Callable[..., Supervisor]) -> None:
    supervisor = answering(images=lambda _asked: [])
    place.two_versions()
    place.said("rollback", "tiny")
    place.said("list")
    place.said("verify")
    assert [asked["look"] for asked in supervisor.asked] == [["tiny"]] * 3


def test_progress_is_plain_lines_in_a_pipe(place: Place) -> None:
    done = place.run("pull")
    assert "tiny: 100 %\n" in done.stderr
    assert "\r" not in done.stderr
    assert "\x1b" not in done.stderr


def test_progress_is_a_bar_on_a_terminal(place: Place) -> None:
    ours, theirs = pty.openpty()
    argv = [*arguments(place.folder, "images", "pull"), "--config", str(place.map)]
    with subprocess.Popen(
        argv, cwd=ROOT, env={"PATH": os.environ["PATH"], "TERM": "xterm"}, stdout=subprocess.PIPE, stderr=theirs
    ) as process:
        os.close(theirs)
        seen = _read_to_end(ours)
        assert process.wait(60) == 0
    assert "tiny" in seen
    assert "100%" in seen
    assert "\r" in seen


def _read_to_end(terminal: int) -> str:
    pieces = []
    try:
        while data := os.read(terminal, 4096):
            pieces.append(data)
    except OSError:  # a terminal whose other end is closed
        pass
    finally:
        os.close(terminal)
    return b"".join(pieces).decode()


def test_two_pulls_at_once_do_not_write_one_file(place: Place) -> None:
    place.source.write_bytes(DISK * 16)
    done: list[subprocess.CompletedProcess[str]] = []
    threads = [threading.Thread(target=lambda: done.append(place.run("pull"))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert any(each.returncode == 0 for each in done)
    for each in done:
        assert each.returncode == 0 or "another process is writing this image" in each.stderr
    assert place.link.read_bytes() == DISK * 16
