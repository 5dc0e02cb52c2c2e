"""What an operator asks and orders, each command in both forms, against a running service on noop."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from pathlib import Path
from typing import Any

import pytest

from solstice.host import machine
from solstice.model import AttemptId
from tests.e2e.conftest import Make
from tests.e2e.service import Service, encoded, raw_publish

pytestmark = pytest.mark.broker

MIB = 1 << 20
CPUS = machine.look(Path("/")).cpus
MAP = f"""
default_label: tiny
aliases:
  little: tiny
sizes:
  half: {{cpus: 1, memory: 512MiB}}
  whole: {{cpus: {CPUS}, memory: 512MiB}}
images:
  tiny: {{source: /nowhere/tiny, local_path: /nowhere/tiny}}
  other: {{source: /nowhere/other, local_path: /nowhere/other}}
"""


@pytest.fixture
def serve(host: Make) -> Make:
    """Starts the one service of a test, with room for eight jobs; its settings as keyword arguments."""
    roomy = {"CAPACITY_MAP": "tiny=8", "MAX_CONCURRENCY": "8", "DRAIN_TIMEOUT": "0"}
    return lambda **environment: host(image_map=MAP, **{**roomy, **environment})


def asked(service: Service, *words: str) -> Any:
    """What a command answers in JSON."""
    done = service.command(*words, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def told(service: Service, *words: str) -> str:
    """What a command tells a person."""
    done = service.command(*words)
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    return done.stdout


def refused(service: Service, *words: str) -> str:
    """What a command says that the supervisor refuses, with --json too."""
    for form in ((), ("--json",)):
        done = service.command(*words, *form)
        assert (done.returncode, done.stdout) == (1, "")
        assert "Traceback" not in done.stderr
    return done.stderr


def lasting(service: Service, seconds: float = 300, **fields: Any) -> str:
    """A job that runs, for long if nobody ends it; its id, when it does."""
    job = service.submit("true", env={"NOOP_SECONDS": str(seconds)}, **fields)
    service.said(rf"attempt is running .*job={job}")
    return job


def waiting(service: Service, **fields: Any) -> str:
    """A job that was accepted, and has to wait."""
    job = service.submit("true", **fields)
    service.said(rf"job accepted .*job={job}")
    return job


def ended(service: Service, **fields: Any) -> str:
    job = service.submit("true", **fields)
    service.done(job)
    return job


# What is there


def test_status_jobs_and_top_show_what_the_host_does(serve: Make) -> None:
    service = serve(MAX_CONCURRENCY="1")
    running = lasting(service)
    pending = waiting(service, runs_on="little", priority=7)
    status = asked(service, "status")
    assert (status["backend"], status["broker"], status["store"], status["pid"]) == (
        "noop",
        "up",
        "ok",
        service.process.pid,
    )
    assert status["capacity"]["slots"] == {"used": 1, "limit": 1}
    assert [(job["job"], job["phase"]) for job in status["active"]] == [(running, "running")]
    assert [(job["job"], job["place"], job["resource"]) for job in status["pending"]] == [(pending, 1, "slots")]
    assert {label["image"]: label["labels"] for label in status["labels"]}["tiny"] == ["little", "tiny"]
    for text in (told(service, "status"), told(service, "top", "--iterations", "1")):
        assert "intake    taking jobs" in text
        for job in (running, pending):
            assert job[:8] in text
        assert "all slots of this host are taken, 1 (MAX_CONCURRENCY)" in text
    two = service.command("top", "--json", "--iterations", "2", "--interval", "0.1").stdout.splitlines()
    assert [json.loads(line)["pid"] for line in two] == [service.process.pid] * 2
    assert [(job["id"], job["state"]) for job in asked(service, "jobs")] == [
        (pending, "accepted"),
        (running, "running"),
    ]
    assert [job["id"] for job in asked(service, "jobs", "--limit", "1")] == [pending]
    assert [job["id"] for job in asked(service, "jobs", "--state", "running")] == [running]
    assert pending[:8] not in told(service, "jobs", "--state", "running")
    assert "running" in told(service, "jobs")


def test_show_has_the_whole_of_a_job(serve: Make) -> None:
    service = serve()
    job = ended(service, runs_on="little", repo_url="https://forge/me/it.git", commit_sha="1" * 40)
    found = asked(service, "show", job)
    assert (found["job"]["id"], found["job"]["state"]) == (job, "succeeded")
    assert [attempt["phase"] for attempt in found["attempts"]] == ["done"]
    text = told(service, "show", job[:8])
    assert f"job        {job}\nstate      succeeded, exit status 0\n" in text
    assert "label      little (image tiny)" in text
    assert "https://forge/me/it.git" in text
    assert "preparing 0." in text
    assert f"{service.state}/jobs/{job}/1/log" in text


def test_show_says_whose_fault_it_was_and_what_to_do(serve: Make) -> None:
    service = serve()
    refuse(service, "the switch is unplugged")
    text = told(service, "show", ended(service)[:8])
    assert "state      errored" in text
    assert "cause      infra.hypervisor: the hypervisor refused or failed" in text
    assert "remedy     read the detail, and the log of libvirtd" in text
    assert "detail     the switch is unplugged" in text


# Why


def why(service: Service, job: str, resource: str | None, text: str) -> Any:
    """The answer about a job, in both forms, which must name this resource and this reason."""
    answer = asked(service, "why", job)
    assert (answer["job"], answer["resource"]) == (job, resource)
    assert text in answer["why"]
    person = told(service, "why", job[:8])
    assert f"job {job[:8]} " in person
    assert text in person
    return answer


def test_why_names_the_slots_with_place_and_estimate(serve: Make) -> None:
    service = serve(MAX_CONCURRENCY="1")
    running = lasting(service)
    first, second = waiting(service), waiting(service)
    text = "all slots of this host are taken, 1 (MAX_CONCURRENCY)"
    assert why(service, first, "slots", text)["place"] == 1
    answer = why(service, second, "slots", text)
    assert (answer["place"], answer["starts_in"]) == (2, None)
    assert "no estimate yet" in told(service, "why", second)
    assert why(service, running, None, "it is not waiting: attempt 1 is running")["place"] is None
    told(service, "cancel", running)
    service.done(second)
    third, fourth = lasting(service), waiting(service)
    assert why(service, fourth, "slots", text)["starts_in"] is not None
    assert "it starts in about" in told(service, "why", fourth)
    told(service, "cancel", third)


def test_why_names_the_label(serve: Make) -> None:
    service = serve(CAPACITY_MAP="little=1")
    lasting(service, runs_on="tiny")
    why(service, waiting(service, runs_on="little"), "label", "all slots of tiny are taken, 1 (CAPACITY_MAP)")
    assert asked(service, "status")["capacity"]["slots"] == {"used": 1, "limit": 8}


def test_why_names_the_machines_that_boot(serve: Make) -> None:
    service = serve(MAX_BOOTING="1")
    job = str(uuid.uuid4())
    # Whoever writes to a FIFO, as noop does when it makes this VM, waits for a reader.
    vm = service.state / "noop" / AttemptId((service.state / "owner").read_text().strip(), job, 1).name
    os.mkfifo(vm)
    raw_publish(service.amqp_url, encoded(request_id=job))
    service.said(rf"attempt started .*job={job}")
    why(service, waiting(service), "booting", "as many VMs boot as may, 1 (MAX_BOOTING)")
    reader = os.open(vm, os.O_RDONLY | os.O_NONBLOCK)
    service.done(job)
    os.close(reader)


def test_why_names_the_cpus(serve: Make) -> None:
    service = serve(CPU_OVERCOMMIT="1")
    lasting(service, size="whole")
    why(service, waiting(service, size="half"), "cpus", f"it wants CPUs: 1, 0 of {CPUS} are free")


def test_why_names_the_memory(serve: Make) -> None:
    reserve = machine.look(Path("/")).memory_mib - 512
    service = serve(MEMORY_RESERVE=f"{reserve}MiB")
    lasting(service, size="half")
    why(service, waiting(service, size="half"), "memory", "it wants 512 MiB of memory, 0 of 512 are free")


def test_why_names_the_disk(serve: Make, reachable: Path) -> None:
    disk = shutil.disk_usage(reachable)
    floor = disk.free + disk.used // 2
    service = serve(DISK_FLOOR=f"{floor // MIB}MiB")
    why(service, waiting(service), "disk", f"less than the floor of {floor // MIB} (DISK_FLOOR)")


def test_why_names_a_pause_and_how_it_ends(serve: Make) -> None:
    service = serve()
    assert asked(service, "pause", "little") == {"paused": ["tiny"], "host": False}
    job = waiting(service)
    assert why(service, job, "other", "tiny is paused (solstice resume tiny)")["place"] == 1
    assert "paused" in told(service, "status")
    service.done(service.submit("true", runs_on="other"))
    assert told(service, "pause") == "paused now: this host, tiny\n"
    why(service, job, "other", "this host is paused (solstice resume)")
    assert asked(service, "resume") == {"paused": ["tiny"], "host": False}
    assert told(service, "resume", "tiny") == "paused now: nothing\n"
    service.done(job)
    for command in ("pause", "resume"):
        assert "this host has no such label (it has little, other, tiny)" in refused(service, command, "amiga")


def refuse(service: Service, why: str, label: str = "tiny") -> Path:
    """Let every VM of a label fail."""
    refusal = service.state / "noop" / f"refuse-{label}"
    refusal.write_text(why)
    return refusal


def test_why_names_a_quarantine_and_resume_ends_it(serve: Make) -> None:
    service = serve()
    refusal = refuse(service, "the switch is unplugged")
    for _ in range(3):
        ended(service)
    job = waiting(service)
    text = "tiny is in quarantine, 3 attempts in a row failed by this host: the switch is unplugged"
    why(service, job, "other", text)
    assert text in told(service, "status")
    refusal.unlink()
    told(service, "resume", "tiny")
    service.done(job)
    assert asked(service, "show", job)["job"]["state"] == "succeeded"


def test_why_names_the_job_of_the_same_concurrency_group(serve: Make) -> None:
    service = serve()
    first = lasting(service, concurrency_group="deploy")
    second = waiting(service, concurrency_group="deploy")
    why(service, second, "other", f"job {first[:8]} of the same concurrency group has not ended")


def test_why_of_a_job_that_waits_for_nothing_says_what_became_of_it(serve: Make) -> None:
    service = serve()
    assert why(service, ended(service), None, "it has ended: it did what it should")["state"] == "succeeded"
    rejected = service.submit("true", runs_on="amiga")
    service.said("request rejected")
    answer = asked(service, "why", rejected)
    assert (answer["state"], answer["place"]) == ("rejected", None)
    for text in (answer["why"], told(service, "why", rejected)):
        assert "runs_on: amiga is no label of this host, which has little, other, tiny" in text
    unknown = "00000000-0000-4000-8000-000000000000"
    assert "a request that waits in the broker is not known here yet" in refused(service, "why", unknown)
    assert "4 characters at least" in refused(service, "why", "0")


# Orders


def test_cancel_ends_what_waits_and_what_runs_and_nothing_twice(serve: Make) -> None:
    service = serve(MAX_CONCURRENCY="1")
    running, pending = lasting(service), waiting(service)
    assert asked(service, "cancel", pending) == {"job": pending, "state": "accepted"}
    assert told(service, "cancel", running[:8]) == f"job {running[:8]} is being cancelled; it ran\n"
    service.done(running)
    for job in (pending, running):
        row = asked(service, "show", job)["job"]
        assert (row["state"], row["cause"]) == ("cancelled", "user.cancelled")
        assert "it is cancelled" in refused(service, "cancel", job)
    assert "no job that this host accepted" in refused(service, "cancel", "ffff")


def test_a_drain_takes_nothing_new_and_is_over_when_the_last_job_is(serve: Make) -> None:
    service = serve()
    # Longer than any other answer may take.
    job = lasting(service, seconds=8)
    assert asked(service, "drain") == {"active": 1, "pending": 0}
    assert told(service, "drain") == "draining: 1 running, 0 pending\n"
    assert "intake    draining, no new jobs are taken (solstice resume)" in told(service, "status")
    assert asked(service, "drain", "--wait") == {"active": 0, "pending": 0}
    assert asked(service, "show", job)["job"]["state"] == "succeeded"
    assert told(service, "drain", "--wait") == "drained: nothing is running\n"
    late = service.submit("true")
    assert "a request that waits in the broker" in refused(service, "why", late)
    told(service, "resume")
    service.done(late)
