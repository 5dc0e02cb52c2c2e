"""The main job on the tiny guest: from a request to its result, with nothing left behind."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pika
import pytest

from solstice.broker.topology import RESULTS
from solstice.protocol import runner
from tests.e2e.conftest import Make
from tests.e2e.service import Service
from tests.real.libvirtd import virsh
from tests.runner.peer import Peer

pytestmark = [pytest.mark.broker, pytest.mark.libvirt]


def facts(path: Path) -> tuple[int, int, int, str]:
    stat = path.stat()
    return stat.st_uid, stat.st_gid, stat.st_mode, hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_job_runs_in_a_vm_and_leaves_its_result_and_nothing_else(service: Service) -> None:
    before = facts(service.image)
    event = service.outcome("echo from $(hostname) as $SOLSTICE_JOB_ID", "echo two; exit 7", "echo never")
    job = event["job_id"]
    assert (event["state"], event["cause"], event["exit_code"]) == ("failed", "user.step_failed", 7)
    assert [(step["name"], step["exit_code"]) for step in event["steps"]] == [("step 1", 0), ("step 2", 7)]
    assert event["backend"] == "libvirt"
    service.done(job)
    log = service.log(job)
    assert f"from solstice-{job[:8]} as {job}" in log
    assert "two" in log
    assert "never" not in log
    assert "Linux version" in service.log(job, name="console.log")
    service.assert_nothing_left(job)
    assert facts(service.image) == before
    assert service.end() == 0


def test_the_result_waits_for_a_reader_who_is_late(service: Service) -> None:
    job = service.outcome("true")["job_id"]
    connection = pika.BlockingConnection(pika.URLParameters(service.amqp_url))
    _method, properties, body = connection.channel().basic_get(RESULTS, auto_ack=True)
    connection.close()
    event = json.loads(body)
    assert (event["job_id"], event["state"]) == (job, "succeeded")
    assert properties.message_id == event["event_id"]
    (row,) = service.ask("jobs")
    assert (row["id"], row["state"]) == (job, "succeeded")


def test_a_step_that_prints_records_cannot_change_its_result(service: Service) -> None:
    nonce = "0123456789abcdef" * 2
    forged = [
        "\\036" + nonce + '{"type":"step_end","index":0,"exit_code":0}\\n',
        '\\036{"type":"step_end","index":0,"exit_code":0}\\n',
        "\\036" + nonce + '{"type":"bye"}\\n',
        '\\036{"type":"hello","protocol":1}\\n',
        "\\036" + nonce + '{"type":"rebooted"}\\n',
    ]
    printing = "".join(f"printf '{record}'\n" for record in forged)
    event = service.outcome(f"{printing}exit 9")
    assert (event["state"], event["exit_code"]) == ("failed", 9)
    service.done(event["job_id"])
    log = service.log(event["job_id"])
    assert log.count("\x1e") == len(forged)
    assert '{"type":"rebooted"}' in log


def test_a_recorded_transcript_of_another_job_is_output(service: Service, tmp_path: Path) -> None:
    """Every byte that a real runner sent for a job that succeeded, printed by a step of a job that fails."""
    with Peer(tmp_path / "state", os.environ["PATH"]) as other:
        other.welcome()
        other.step("echo all is well")
        other.send(runner.bye())
        assert isinstance(other.event(), runner.Bye)
    transcript = bytes(other.transcript)
    assert transcript.count(b"\x1e") >= 3
    octal = "".join(f"\\{byte:03o}" for byte in transcript)
    event = service.outcome(f"printf '{octal}'; exit 4")
    assert (event["state"], event["exit_code"]) == ("failed", 4)
    service.done(event["job_id"])
    assert transcript.decode() in service.log(event["job_id"])


def test_a_job_that_takes_too_long_is_timed_out_with_what_it_printed(service: Service) -> None:
    event = service.outcome("echo begun; sleep 600", timeout_s=3)
    assert (event["state"], event["cause"]) == ("timed_out", "user.timeout")
    assert "the job took longer than its 3 s" in event["detail"]
    service.done(event["job_id"])
    assert "begun" in service.log(event["job_id"])
    service.assert_nothing_left(event["job_id"])


def test_a_guest_that_powers_off_in_a_step_is_a_lost_vm(service: Service) -> None:
    event = service.outcome("echo going; poweroff -f")
    assert (event["state"], event["cause"]) == ("errored", "infra.vm_lost")
    service.done(event["job_id"])
    service.assert_nothing_left(event["job_id"])


def test_a_guest_that_never_reports_is_a_boot_timeout(make: Make) -> None:
    service = make(BOOT_TIMEOUT="0.5")
    service.start()
    event = service.outcome("true")
    assert (event["state"], event["cause"]) == ("errored", "infra.boot_timeout")
    service.done(event["job_id"])
    service.assert_nothing_left(event["job_id"])


def test_a_network_that_is_down_is_started_and_set_to_autostart(make: Make) -> None:
    virsh("net-destroy", "default")
    virsh("net-autostart", "default", "--disable")
    service = make()
    service.start()
    assert "default" in virsh("net-list", "--name").stdout.split()
    assert "default" in virsh("net-list", "--autostart", "--name").stdout.split()
    assert service.outcome("ip addr show dev eth0 | grep -q UP")["state"] == "succeeded"
