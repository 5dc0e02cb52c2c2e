"""Workers that die or hang, a fork server that hangs, and a supervisor that is told to stop."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from solstice.broker.enqueue import ResultListener
from tests.e2e.conftest import Make
from tests.e2e.service import Service

pytestmark = [pytest.mark.broker, pytest.mark.libvirt]


def test_a_worker_killed_while_its_vm_boots_costs_one_attempt(make: Make) -> None:
    service = make(MAX_CONCURRENCY="1")
    service.start()

    def kill(job: str) -> None:
        service.said(rf"attempt is booting .*job={job}")
        service.worker(job).send_signal(signal.SIGKILL)

    event = service.outcome("true", during=kill)
    assert (event["state"], event["cause"]) == ("errored", "infra.worker_crashed")
    assert "SIGKILL" in event["detail"]
    service.done(event["job_id"])
    service.assert_nothing_left(event["job_id"])
    assert service.outcome("true")["state"] == "succeeded"


def test_while_a_worker_hangs_other_jobs_start_and_finish(service: Service) -> None:
    hung = service.submit("true")
    service.said(rf"attempt is booting .*job={hung}")
    worker = service.worker(hung)
    worker.suspend()
    try:
        assert service.outcome("true")["state"] == "succeeded"
        assert [active["job"] for active in service.ask("status")["active"]].count(hung) == 1
    finally:
        worker.resume()
    service.done(hung)
    service.assert_nothing_left(hung)


def test_while_the_fork_server_is_stopped_the_supervisor_goes_on(service: Service) -> None:
    running = service.submit("sleep 3; echo finished")
    service.said(rf"attempt is running .*job={running}")
    forkserver = service.child("solstice: forkserver")
    forkserver.suspend()
    try:
        job = service.submit("true")
        service.said(rf"attempt started .*job={job}")
        service.done(running)
        assert service.ask("job", job=running)["job"]["state"] == "succeeded"
        assert [active["job"] for active in service.ask("status")["active"]] == [job]
    finally:
        forkserver.resume()
    service.done(job)
    assert service.ask("job", job=job)["job"]["state"] == "succeeded"


def test_sigterm_shuts_the_guest_down_and_puts_the_job_back(make: Make) -> None:
    service = make(DRAIN_TIMEOUT="0")
    service.start()
    job = service.submit("echo begun; sleep 3600")
    service.said(rf"attempt is running .*job={job}")
    tree = [service.process.pid, *(child.pid for child in psutil.Process(service.process.pid).children(recursive=True))]
    assert service.end(signal.SIGTERM) == 0
    assert "tiny-guest: power button" in service.log(job, name="console.log")
    assert not [pid for pid in tree if psutil.pid_exists(pid)]
    service.assert_nothing_left(job)
    service.start()
    service.said(rf"attempt is running .*job={job} .*attempt=2")
    row = service.ask("job", job=job)
    assert row["job"]["counted"] == 1
    assert [attempt["cause"] for attempt in row["attempts"]] == ["infra.host_stopping", None]
    service.process.send_signal(signal.SIGTERM)
    service.said("stopping")  # two signals of one number that wait at once are one
    service.process.send_signal(signal.SIGTERM)
    service.said("stopping")  # two signals of one number that wait at once are one
    assert service.wait() == 0
    service.assert_nothing_left(job)


def test_a_job_that_ends_within_the_drain_time_ends_normally(service: Service) -> None:
    job = service.submit("sleep 2; echo finished")
    service.said(rf"attempt is running .*job={job}")
    assert service.end(signal.SIGTERM) == 0
    assert f"attempt ended: succeeded job={job}" in service.text
    assert "finished" in service.log(job)
    service.assert_nothing_left(job)


def test_what_was_pending_runs_at_the_next_start_and_a_second_signal_hurries(make: Make) -> None:
    service = make(DRAIN_TIMEOUT="3600", MAX_CONCURRENCY="1")
    service.start()
    first = service.submit("trap '' TERM; sleep 3600")
    service.said(rf"attempt is running .*job={first}")
    second = service.submit("echo my turn")
    service.said(rf"job accepted .*job={second}")
    service.process.send_signal(signal.SIGTERM)
    service.said("stopping")  # two signals of one number that wait at once are one
    assert service.end(signal.SIGTERM, seconds=20) == 0
    service.assert_nothing_left(first, second)
    service.start()
    service.said(rf"attempt is running .*job={first}")
    assert [job["state"] for job in service.ask("jobs")] == ["accepted", "running"]
    service.process.send_signal(signal.SIGTERM)
    service.said("stopping")  # two signals of one number that wait at once are one
    assert service.end(signal.SIGTERM, seconds=20) == 0


def test_a_worker_that_hangs_at_a_stop_is_killed_and_its_vm_removed(make: Make) -> None:
    service = make(DRAIN_TIMEOUT="0", VM_SHUTDOWN_TIMEOUT="1")
    service.start()
    job = service.submit("sleep 3600")
    service.said(rf"attempt is running .*job={job}")
    service.worker(job).suspend()
    service.process.send_signal(signal.SIGTERM)
    service.said("stopping")  # two signals of one number that wait at once are one
    assert service.end(signal.SIGTERM, seconds=60) == 0
    service.assert_nothing_left(job)
    assert "worker hangs, killing it" in service.text
    assert f"attempt ended: errored job={job}" in service.text
    assert "cause=infra.host_stopping" in service.text


def test_acceleration_is_found_out_once_and_costs_no_attempt(make: Make) -> None:
    service = make(LIBVIRT_DOMAIN_TYPE="auto")
    service.start()
    event = service.outcome("true")
    assert (event["state"], event["attempt"]) == ("succeeded", 1)
    service.said("guests run with domain type (kvm|qemu)")
    assert service.ask("status")["domain_type"] in ("kvm", "qemu")
    service.done(event["job_id"])
    service.assert_nothing_left(event["job_id"])
    assert {path.name for path in (service.state / "jobs").iterdir()} == {event["job_id"]}


def test_ctrl_c_reaches_the_supervisor_alone(make: Make) -> None:
    service = make(DRAIN_TIMEOUT="30")
    service.start()
    job = service.submit("sleep 2; echo finished")
    service.said(rf"attempt is running .*job={job}")
    # what a terminal does: the signal goes to the whole foreground process group
    os.killpg(service.process.pid, signal.SIGINT)
    assert service.wait() == 0
    assert f"attempt ended: succeeded job={job}" in service.text


def test_a_running_job_survives_the_supervisor_and_its_log_is_whole(service: Service) -> None:
    script = "i=0; while [ $i -lt 400 ]; do i=$((i+1)); echo line $i; [ $((i % 20)) -ne 0 ] || sleep 1; done"
    job = service.submit(script)
    service.said(rf"attempt is running .*job={job}")
    worker = service.worker(job)
    with ResultListener(service.amqp_url) as listener:
        service.end(signal.SIGKILL)
        service.start()
        service.said(rf"adopting an attempt .*job={job}")
        assert service.worker(job).pid == worker.pid
        event = listener.wait(job, time.monotonic() + 240, lambda _event: None)
    assert event is not None
    assert event["state"] == "succeeded"
    service.done(job)
    assert [line for line in service.log(job).splitlines() if line.startswith("line ")] == [
        f"line {number}" for number in range(1, 401)
    ]
    psutil.wait_procs([worker], timeout=30)
    service.assert_nothing_left(job)


def test_what_a_dead_host_leaves_is_removed_and_its_job_is_tried_again(make: Make) -> None:
    service = make(MAX_ATTEMPTS="2")
    service.start()
    job = service.submit("true", "sleep $((SOLSTICE_ATTEMPT == 1 ? 3600 : 0))")
    service.said(rf"attempt is running .*job={job}")
    family = psutil.Process(service.process.pid).children(recursive=True)
    service.process.send_signal(signal.SIGKILL)
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    service.wait()
    service.start()
    service.said(rf"attempt ended: errored .*job={job} .*cause=infra.host_lost .*next=\"attempt 2\"")
    service.said(rf"attempt ended: succeeded .*job={job}", seconds=240)
    service.said(r"attempt is done .*attempt=2")
    service.assert_nothing_left(job)


def test_the_supervisor_has_one_thread_and_no_hypervisor_and_its_workers_no_password(make: Make) -> None:
    service = make()
    by_name = service.amqp_url.replace("127.0.0.1", "localhost")
    service.environment["AMQP_URL"] = by_name
    service.start()
    job = service.submit("sleep 5")
    service.said(rf"attempt is running .*job={job}")
    process = Path("/proc") / str(service.process.pid)
    assert len(list((process / "task").iterdir())) == 1
    maps = (process / "maps").read_text()
    assert "libvirt" not in maps
    assert "sqlite" not in maps
    password = by_name.split(":")[2].split("@")[0]
    assert password
    worker = service.worker(job)
    family = [service.child("solstice: forkserver"), worker, *worker.children(recursive=True)]
    assert len(family) == 3
    for member in family:
        assert password.encode() not in (Path("/proc") / str(member.pid) / "environ").read_bytes()
    assert worker.cmdline()[0].startswith(f"solstice: worker {job[:8]} tiny running")
    assert worker.children()[0].cmdline()[0].startswith(f"solstice: session {job[:8]}")
    service.done(job)
