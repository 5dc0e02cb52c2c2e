"""The commands as a person uses them, against a running service."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.service import ROOT, Service

pytestmark = [pytest.mark.broker, pytest.mark.libvirt]


def command(service: Service, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "solstice", *words],
        cwd=ROOT,
        env=service.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_enqueue_wait_shows_the_log_and_exits_as_the_job_did(service: Service) -> None:
    done = command(
        service, "enqueue", "--runs-on", "tiny", "--wait", "--env", "WHO=me", "--", "echo hello $WHO; exit 5"
    )
    assert done.returncode == 5, done.stderr
    assert "hello me" in done.stdout
    assert "failed: step 'run' ended with exit status 5 [user.step_failed]" in done.stderr


def test_a_request_from_a_file_and_what_the_host_then_shows(service: Service, tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text("runs_on: tiny\nsteps:\n  - name: greet\n    run: echo from a file\n  - run: sleep 3\n")
    sent = command(service, "enqueue", "--file", str(path))
    assert sent.returncode == 0, sent.stderr
    job = sent.stdout.strip()
    service.said(rf"attempt is running .*job={job}")
    status = json.loads(command(service, "status", "--json").stdout)
    assert [active["job"] for active in status["active"]] == [job]
    assert (status["backend"], status["broker"]) == ("libvirt", "up")
    assert job[:8] in command(service, "status").stdout
    followed = command(service, "logs", job[:8], "-f")
    assert followed.returncode == 0, followed.stderr
    assert followed.stdout.startswith("==> greet\nfrom a file\n")
    assert command(service, "logs", job).stdout == followed.stdout
    assert "Linux version" in command(service, "logs", job, "--console").stdout
    (row,) = json.loads(command(service, "jobs", "--json").stdout)
    assert (row["id"], row["state"], row["exit_code"]) == (job, "succeeded", 0)
    assert "succeeded" in command(service, "jobs").stdout


def test_a_rejected_request_ends_the_waiting(service: Service) -> None:
    done = command(service, "enqueue", "--runs-on", "amiga", "--wait", "--", "true")
    assert done.returncode == 65
    assert "amiga is no label of this host" in done.stderr


def test_run_needs_no_broker_and_leaves_nothing(service: Service) -> None:
    before = set(Path("/var/tmp").glob("solstice-*"))
    service.environment["AMQP_URL"] = "amqp://nobody@127.0.0.1:1"
    done = command(service, "run", "--runs-on", "tiny", "--", "echo on my own; exit 3")
    assert done.returncode == 3, done.stderr
    assert done.stdout == "==> run\non my own\n==> run: exit status 3\n"
    assert set(Path("/var/tmp").glob("solstice-*")) == before
    service.assert_nothing_left()
