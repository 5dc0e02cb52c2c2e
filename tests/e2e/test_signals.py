"""What a host does at SIGQUIT and SIGHUP, and what systemd hears of it."""

from __future__ import annotations

import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.broker.owner import consumers, waiting
from tests.e2e.conftest import Make
from tests.e2e.service import Service
from tests.real.waiting import until

pytestmark = pytest.mark.broker


def lasting(service: Service, seconds: float = 1.0) -> str:
    return service.submit("true", env={"NOOP_SECONDS": str(seconds)})


def test_quit_finishes_what_was_accepted_takes_nothing_new_and_ends(host: Make) -> None:
    service = host(MAX_CONCURRENCY="1")
    accepted = [lasting(service), lasting(service)]
    service.said("job accepted", times=2)
    service.process.send_signal(signal.SIGQUIT)
    until(lambda: consumers(service.amqp_url) == 0, seconds=30, what="the end of consuming", evidence=str)
    later = lasting(service)
    assert service.wait() == 0
    for job in accepted:
        service.said(rf"attempt ended: succeeded .*job={job}")
    assert later not in service.text
    assert waiting(service.amqp_url, "solstice.jobs.v1") == 1


def test_quit_leaves_what_is_paused_for_the_next_start(host: Make) -> None:
    service = host()
    service.ask("pause", label="tiny")
    job = lasting(service)
    service.said("job accepted")
    assert service.end(signal.SIGQUIT) == 0
    service.start()
    service.said("paused since before this start: tiny")
    assert [(each["job"], each["why"]) for each in service.ask("status")["pending"]] == [
        (job, "tiny is paused (solstice resume tiny)")
    ]
    service.ask("resume", label="tiny")
    service.said(rf"attempt ended: succeeded .*job={job}")


def test_quit_and_then_term_stops_at_once(host: Make) -> None:
    service = host(DRAIN_TIMEOUT="0")
    job = lasting(service, 600)
    service.said("attempt is running")
    service.process.send_signal(signal.SIGQUIT)
    service.said("draining")
    assert service.end(signal.SIGTERM) == 0
    service.said(rf"attempt ended: errored .*job={job} .*cause=infra.host_stopping")


def test_hup_reads_the_map_and_its_limits_again(host: Make) -> None:
    service = host(MAX_CONCURRENCY="", CAPACITY_MAP="")
    assert service.ask("status")["capacity"]["slots"]["limit"] == 2
    image_map = Path(service.environment["ORCH_CONFIG"])
    image_map.write_text(
        image_map.read_text()
        + "  other:\n    source: /x\n    local_path: /x\nlimits:\n  max_concurrency: 3\n  capacity_map:\n    other: 1\n"
    )
    assert service.outcome("true", runs_on="other")["cause"] == "request.unschedulable"
    service.process.send_signal(signal.SIGHUP)
    service.said("reloaded")
    assert service.outcome("true", runs_on="other")["state"] == "succeeded"
    status = service.ask("status")
    assert status["capacity"]["slots"]["limit"] == 3
    assert {label["image"]: label["limit"] for label in status["labels"]} == {"tiny": 3, "other": 1}


def test_a_wrong_map_changes_nothing_and_it_is_said_why(host: Make) -> None:
    service = host()
    image_map = Path(service.environment["ORCH_CONFIG"])
    right = image_map.read_text()
    image_map.write_text(right + "limits:\n  max_concurrency: many\n")
    before = service.ask("status")
    service.process.send_signal(signal.SIGHUP)
    said = service.said("not reloaded, everything stays as it was")
    assert f"{image_map}:7: limits.max_concurrency" in said
    after = service.ask("status")
    assert (after["labels"], after["pid"]) == (before["labels"], before["pid"])


def test_a_pending_job_whose_label_goes_with_a_reload_ends_with_the_labels_there_are(host: Make) -> None:
    service = host()
    service.ask("pause")
    job = lasting(service)
    service.said("job accepted")
    Path(service.environment["ORCH_CONFIG"]).write_text(
        "default_label: other\nimages:\n  other:\n    source: /x\n    local_path: /x\n"
    )
    # it named no label, so it now means the new default one; the next names one that is gone
    named = service.submit("true", runs_on="tiny")
    service.said(rf"job accepted .*job={named}")
    service.process.send_signal(signal.SIGHUP)
    service.said(rf"job errored: runs_on: tiny is no label of this host, which has other .*job={named}")
    service.ask("resume")
    service.said(rf"attempt ended: succeeded .*job={job} label=other")


def test_systemd_hears_of_readiness_state_reload_and_stop(host: Make, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(30)

        def hear(wanted: str) -> None:
            deadline = time.monotonic() + 30
            while not (text := manager.recv(1000).decode()).startswith(wanted):
                assert time.monotonic() < deadline, f"{text} and never {wanted}"

        service = host(NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="1000000")
        hear("READY=1")
        hear("STATUS=0/2 running, 0 pending; broker up")
        hear("WATCHDOG=1")
        hear("WATCHDOG=1")
        lasting(service, 600)
        hear("STATUS=1/2 running, 0 pending; broker up")
        service.process.send_signal(signal.SIGHUP)
        hear("RELOADING=1\nMONOTONIC_USEC=")
        hear("READY=1")
        service.process.send_signal(signal.SIGTERM)
        hear("STOPPING=1")


def test_a_drain_that_is_undone_takes_jobs_again_and_tells_who_waited(host: Make) -> None:
    service = host()
    job = lasting(service, 600)
    service.said(rf"attempt is running .*job={job}")
    with ThreadPoolExecutor() as pool:
        waiting_for_it = pool.submit(service.command, "drain", "--wait")
        service.said("draining")
        service.ask("resume")
        done = waiting_for_it.result(60)
    assert done.returncode == 1
    assert "the drain was undone" in done.stderr
    assert service.outcome("true")["state"] == "succeeded"


def test_a_drain_waits_for_what_is_still_being_stored(host: Make) -> None:
    service = host()
    store = service.child("solstice: store")
    store.send_signal(signal.SIGSTOP)
    job = lasting(service, 0.1)
    service.said("intake: deliveries wait")
    service.process.send_signal(signal.SIGQUIT)
    service.said("draining")
    store.send_signal(signal.SIGCONT)
    assert service.wait() == 0
    service.said(rf"attempt ended: succeeded .*job={job}")


def test_of_a_group_the_newer_job_is_left_after_a_restart(host: Make) -> None:
    service = host(DRAIN_TIMEOUT="0")
    older = service.submit("true", env={"NOOP_SECONDS": "600"}, concurrency_group="deploy")
    service.said(rf"attempt is running .*job={older}")
    newer = service.submit("true", concurrency_group="deploy")
    service.said(rf"job accepted .*job={newer}")
    assert service.end() == 0
    service.start()
    service.said(rf"attempt ended: succeeded .*job={newer}")
    ended = service.ask("job", job=older)["job"]
    assert (ended["state"], ended["cause"]) == ("cancelled", "user.cancelled")
    assert f"superseded by job {newer}" in ended["detail"]


def test_a_label_that_left_the_map_can_be_resumed(host: Make) -> None:
    service = host()
    service.ask("pause", label="tiny")
    Path(service.environment["ORCH_CONFIG"]).write_text(
        "default_label: other\nimages:\n  other:\n    source: /x\n    local_path: /x\n"
    )
    service.process.send_signal(signal.SIGHUP)
    service.said("reloaded")
    assert service.ask("resume", label="tiny") == {"paused": [], "host": False}
