"""The job on a real Debian with stock cloud-init, which clones a repository over the libvirt network."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.service import Service
from tests.real.libvirtd import Libvirtd, virsh
from tests.real.waiting import until

pytestmark = [pytest.mark.broker, pytest.mark.libvirt, pytest.mark.debian]

BRIDGE = "192.168.122.1"
AUTHOR = {
    "GIT_AUTHOR_NAME": "t",
    "GIT_AUTHOR_EMAIL": "t@example.org",
    "GIT_COMMITTER_NAME": "t",
    "GIT_COMMITTER_EMAIL": "t@example.org",
}


def git(*words: str) -> str:
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", **AUTHOR}
    return subprocess.run(
        ["git", *words], env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.fixture
def repository(libvirtd: Libvirtd, reachable: Path) -> Iterator[tuple[str, str]]:
    """The URL of a repository that a guest can reach, and a commit of it that is not the newest."""
    assert libvirtd.uri
    work = reachable / "repository"
    git("init", "-q", "-b", "main", str(work))
    for text in ("one", "two", "three"):
        (work / "file").write_text(f"this is commit {text}\n")
        git("-C", str(work), "add", "file")
        git("-C", str(work), "commit", "-q", "-m", text)
    commit = git("-C", str(work), "rev-parse", "HEAD~1")
    if "default" not in virsh("net-list", "--name").stdout:
        virsh("net-start", "default")
    with socket.create_server((BRIDGE, 0)) as free:
        port = free.getsockname()[1]
    argv = ["git", "daemon", "--reuseaddr", "--export-all", f"--base-path={reachable}"]
    daemon = subprocess.Popen([*argv, f"--listen={BRIDGE}", f"--port={port}"], start_new_session=True)
    until(lambda: answers(port), seconds=20, what="git daemon", evidence=lambda: f"exit status {daemon.poll()}")
    yield f"git://{BRIDGE}:{port}/repository", commit
    daemon.terminate()
    daemon.wait(20)


def answers(port: int) -> bool:
    try:
        socket.create_connection((BRIDGE, port), timeout=1).close()
    except OSError:
        return False
    return True


def test_stock_cloud_init_takes_our_seed_and_a_commit_is_checked_out(
    libvirtd: Libvirtd, vhost: str, reachable: Path, debian_image: Path, repository: tuple[str, str]
) -> None:
    url, commit = repository
    service = Service(reachable, vhost, debian_image, LIBVIRT_URI=libvirtd.uri)
    service.start()
    try:
        steps = ["cloud-init status --wait", "hostname; cloud-init query ds | head -20", "git rev-parse HEAD; cat file"]
        event = service.outcome(*steps, repo_url=url, commit_sha=commit)
        job = event["job_id"]
        log = service.log(job)
        assert event["state"] == "succeeded", log
        assert [step["name"] for step in event["steps"]] == ["checkout", "step 1", "step 2", "step 3"]
        assert "status: done" in log
        assert f"\nsolstice-{job[:8]}\n" in log
        assert f"\n{commit}\nthis is commit two\n" in log
        service.done(job)
        service.assert_nothing_left(job)
        assert service.end() == 0
    finally:
        service.close()
