"""What the pass on the timer does while a host works, and what a hand-over waits for; on noop, and sooner."""

from __future__ import annotations

import os
import signal
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from solstice.host import racepoints
from solstice.model import AttemptId
from tests.e2e.conftest import Make
from tests.racing import Race
from tests.real.waiting import until

pytestmark = pytest.mark.broker

SECONDS = 30.0


@pytest.fixture
def race(reachable: Path) -> Iterator[Race]:
    race = Race(reachable / "points")
    yield race
    race.close()


def racing(race: Race, haste: float = 1.0) -> dict[str, str]:
    return {racepoints.VARIABLE: str(race.folder), racepoints.HASTE: str(haste)}


def test_the_timers_pass_removes_orphans_leaves_what_runs_and_is_stopped_by_no_item(host: Make, race: Race) -> None:
    service = host(**racing(race, haste=100.0))
    job = service.submit("true", env={"NOOP_SECONDS": "600"})
    service.said(rf"attempt is running .*job={job}")
    vms = service.state / "noop"
    owner = (service.state / "owner").read_text().strip()
    stuck, orphan = (AttemptId(owner, str(uuid.UUID(int=number)), 1).name for number in (1, 2))
    (vms / stuck).mkdir()
    (vms / orphan).touch()
    until(lambda: not (vms / orphan).exists(), seconds=SECONDS, what="no orphan", evidence=lambda: service.text)
    assert (vms / stuck).is_dir()
    service.said(r"what is left of an attempt cannot be removed", times=2)
    assert [active["job"] for active in service.ask("status")["active"]] == [job]
    (vms / stuck).rmdir()


def test_a_worker_that_hangs_is_named_killed_and_its_vm_removed(host: Make, race: Race) -> None:
    service = host(**racing(race, haste=60.0))

    def stop(job: str) -> None:
        service.said(rf"attempt is running .*job={job}")
        service.worker(job).suspend()

    event = service.outcome("true", env={"NOOP_SECONDS": "600"}, during=stop)
    assert (event["state"], event["cause"]) == ("errored", "infra.worker_hung")
    service.done(event["job_id"])
    assert not list((service.state / "noop").iterdir())


def test_a_hand_over_waits_for_the_first_word_of_a_worker_that_was_just_asked_for(host: Make, race: Race) -> None:
    service = host(**racing(race))
    race.arm("worker.listen.before")
    job = service.submit("true", env={"NOOP_SECONDS": "2"})
    _point, pid = race.reached()
    service.process.send_signal(signal.SIGUSR1)
    service.said(r"handing over: the workers go on")
    with pytest.raises(subprocess.TimeoutExpired):
        service.process.wait(1.0)
    os.kill(pid, signal.SIGCONT)
    assert service.wait() == 0
    service.start()
    service.said(rf"attempt ended: succeeded .*job={job} .*attempt=1")
    service.done(job)
