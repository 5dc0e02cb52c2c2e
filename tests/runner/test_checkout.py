"""The runner's checkout: exactly the commit that was asked for, or a clear end."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from solstice.host.processes import fresh_environment
from solstice.protocol import runner
from solstice.protocol.runner import CHECKOUT, StepEnd
from tests.runner.peer import Peer

# What the runner needs in a guest, beside `sh`.
TOOLS = ["cat", "dd", "env", "grep", "mkdir", "rm", "setsid", "sleep", "stty", "sync", "tr", "uname", "wc"]
OLD_PROTOCOL = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "protocol.version", "GIT_CONFIG_VALUE_0": "0"}


def git(folder: Path, *words: str) -> str:
    who = {f"GIT_{role}_{what}": "test@localhost" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    environment = fresh_environment({**who, "HOME": str(folder)})
    return subprocess.run(
        ["git", *words], cwd=folder, env=environment, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Three commits; `file` says which."""
    folder = tmp_path / "it's a repo"
    folder.mkdir()
    git(folder, "init", "-q")
    for number in range(3):
        (folder / "file").write_text(f"commit {number}\n")
        git(folder, "add", "file")
        git(folder, "commit", "-q", "-m", str(number))
    return folder


def test_a_commit_that_is_not_the_tip_is_checked_out_alone(peer: Peer, repository: Path) -> None:
    sha = git(repository, "rev-parse", "HEAD~1")
    peer.send(runner.checkout(f"file://{repository}", sha))
    assert peer.event() == StepEnd(CHECKOUT, 0), peer.output()
    event, output = peer.step("cat file; git rev-parse HEAD; git rev-list --count HEAD")
    assert event == StepEnd(0, 0)
    assert output.decode().endswith(f"commit 1\n{sha}\n1\n")


def test_everything_is_fetched_where_the_server_gives_no_single_commit(
    repository: Path, state: Path, path: str
) -> None:
    sha = git(repository, "rev-parse", "HEAD~1")
    with Peer(state, path, OLD_PROTOCOL) as peer:
        peer.welcome()
        peer.send(runner.checkout(f"file://{repository}", sha))
        assert peer.event() == StepEnd(CHECKOUT, 0), peer.output()
        assert b"fetching everything" in peer.output()
        assert peer.step("cat file") == (StepEnd(0, 0), b"commit 1\n")


@pytest.mark.parametrize("sha", ["0" * 40, "--help", "HEAD"])
def test_what_is_no_commit_of_the_repository_fails(peer: Peer, repository: Path, sha: str) -> None:
    peer.send(runner.checkout(f"file://{repository}", sha))
    event = peer.event()
    assert isinstance(event, StepEnd)
    assert event.exit_code not in (0, 127)
    assert peer.output() != b""


def test_a_url_is_never_an_option(peer: Peer, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    peer.send(runner.checkout(f"--upload-pack=touch {trap}", "1" * 40))
    assert peer.event() == StepEnd(CHECKOUT, 1)
    assert not trap.exists()


def test_a_guest_without_git_says_so_with_127(shell: str, tmp_path: Path, state: Path) -> None:
    folder = tmp_path / "no-git"
    folder.mkdir()
    (folder / "sh").symlink_to(shell)
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found, tool
        (folder / tool).symlink_to(found)
    with Peer(state, str(folder)) as peer:
        peer.welcome()
        peer.send(runner.checkout("https://localhost/x", "1" * 40))
        assert peer.event() == StepEnd(CHECKOUT, 127)
        assert b"there is no git in this image" in peer.output()
