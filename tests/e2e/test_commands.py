"""The commands as a person uses them, against a running service."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.service import Service

pytestmark = [pytest.mark.broker, pytest.mark.libvirt]


def test_enqueue_wait_shows_the_log_and_exits_as_the_job_did(service: Service) -> None:
    done = service.command("enqueue", "--runs-on", "tiny", "--wait", "--env", "WHO=me", "--", "echo hello $WHO; exit 5")
    assert done.returncode == 5, done.stderr
    assert "hello me" in done.stdout
    assert "failed: step 'run' ended with exit status 5 [user.step_failed]" in done.stderr


def test_a_request_from_a_file_and_what_the_host_then_shows(service: Service, tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text("runs_on: tiny\nsteps:\n  - name: greet\n    run: echo from a file\n  - run: sleep 3\n")
    sent = service.command("enqueue", "--file", str(path))
    assert sent.returncode == 0, sent.stderr
    job = sent.stdout.strip()
    service.said(rf"attempt is running .*job={job}")
    status = json.loads(service.command("status", "--json").stdout)
    assert [active["job"] for active in status["active"]] == [job]
    assert (status["backend"], status["broker"]) == ("libvirt", "up")
    assert job[:8] in service.command("status").stdout
    followed = service.command("logs", job[:8], "-f")
    assert followed.returncode == 0, followed.stderr
    assert followed.stdout.startswith("==> greet\nfrom a file\n")
    assert service.command("logs", job).stdout == followed.stdout
    assert "Linux version" in service.command("logs", job, "--console").stdout
    (row,) = json.loads(service.command("jobs", "--json").stdout)
    assert (row["id"], row["state"], row["exit_code"]) == (job, "succeeded", 0)
    assert "succeeded" in service.command("jobs").stdout


def test_a_rejected_request_ends_the_waiting(service: Service) -> None:
    done = service.command("enqueue", "--runs-on", "amiga", "--wait", "--", "true")
    assert done.returncode == 65
    assert "amiga is no label of this host" in done.stderr


def test_run_needs_no_broker_and_leaves_nothing(service: Service) -> None:
    before = set(Path("/var/tmp").glob("solstice-*"))
    service.environment["AMQP_URL"] = "amqp://nobody@127.0.0.1:1"
    done = service.command("run", "--runs-on", "tiny", "--", "echo on my own; exit 3")
    assert done.returncode == 3, done.stderr
    assert done.stdout == "==> run\non my own\n==> run: exit status 3\n"
    assert set(Path("/var/tmp").glob("solstice-*")) == before
    service.assert_nothing_left()
