"""A host that loses its supervisor, hands over, or comes back to what it had; on noop, with either database."""

from __future__ import annotations

import json
import signal
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from sqlalchemy import create_engine, text

from solstice.broker.enqueue import ResultListener
from solstice.protocol import attach
from tests.e2e.conftest import Make
from tests.e2e.service import Service
from tests.real.postgresql import Postgresql
from tests.real.waiting import until

pytestmark = pytest.mark.broker


@pytest.fixture
def host(reachable: Path, vhost: str, database_url: str) -> Iterator[Make]:
    """Makes started services that run nothing, on each kind of database."""
    made: list[Service] = []

    def make_one(**environment: str) -> Service:
        made.append(Service(reachable, vhost, None, DATABASE_URL=database_url, **environment))
        made[-1].start()
        return made[-1]

    yield make_one
    for service in made:
        service.close()


def lasting(service: Service, seconds: float) -> str:
    job = service.submit("true", env={"NOOP_SECONDS": str(seconds)})
    service.said(rf"attempt is running .*job={job}")
    return job


def terminal_events(service: Service, job: str, begin: object) -> dict[str, object]:
    """The terminal event of a job after something happened."""
    assert callable(begin)
    with ResultListener(service.amqp_url) as listener:
        begin()
        event = listener.wait(job, time.monotonic() + 120, lambda _event: None)
    assert event is not None
    return dict(event)


def nothing_left(service: Service) -> None:
    """No VM, no directory, journal or socket of one, and no process; soon, as a journal goes after its last report."""
    jobs = service.state / "jobs"

    def traces() -> list[str]:
        names = {path.name for path in jobs.rglob("*") if path.name == "vm" or not path.is_dir()}
        return sorted(names - {"log", "console.log", attach.CLOSED})

    until(lambda: not traces(), seconds=5.0, what="no trace of a VM", evidence=lambda: str(traces()))
    assert [path.name for path in (service.state / "noop").iterdir()] == []
    titles = [" ".join(process.cmdline()) for process in psutil.process_iter(["cmdline"]) if process.info["cmdline"]]
    for job in jobs.iterdir():
        assert not [title for title in titles if f"worker {job.name[:8]}" in title]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGUSR1])
def test_a_worker_goes_on_without_its_supervisor_and_the_next_one_adopts_it(host: Make, how: signal.Signals) -> None:
    service = host()
    job = lasting(service, 4)
    worker = service.worker(job)

    def lose() -> None:
        assert service.end(how) == (-how if how is signal.SIGKILL else 0)
        assert worker.is_running()
        service.start()

    event = terminal_events(service, job, lose)
    assert (event["state"], event["attempt"]) == ("succeeded", 1)
    service.said(rf"adopting an attempt .*job={job}")
    service.done(job)
    psutil.wait_procs([worker], timeout=30)
    assert service.ask("status")["capacity"]["slots"]["used"] == 0
    nothing_left(service)


def test_what_ended_while_nobody_was_there_is_published_by_the_next_supervisor(host: Make) -> None:
    service = host()
    job = lasting(service, 1)
    worker = service.worker(job)

    def lose() -> None:
        service.end(signal.SIGKILL)
        psutil.wait_procs([worker], timeout=30)
        service.start()

    assert terminal_events(service, job, lose)["state"] == "succeeded"
    service.done(job)
    nothing_left(service)


def test_an_adopted_job_can_be_cancelled_and_counts_against_capacity(host: Make) -> None:
    service = host(MAX_CONCURRENCY="1")
    job = lasting(service, 600)
    service.end(signal.SIGKILL)
    service.start()
    assert service.ask("status")["capacity"]["slots"]["used"] == 1
    behind = service.submit("true")
    service.said(rf"job accepted .*job={behind}")
    assert service.ask("why", job=behind)["resource"] == "slots"
    assert terminal_events(service, job, lambda: service.ask("cancel", job=job))["cause"] == "user.cancelled"
    service.said(rf"attempt ended: succeeded .*job={behind}")


def test_a_supervisor_that_stops_after_it_adopted_puts_the_job_back(host: Make) -> None:
    service = host(DRAIN_TIMEOUT="0")
    job = lasting(service, 600)
    service.end(signal.SIGKILL)
    service.start()
    service.said(r"attached to a worker")
    assert service.end(signal.SIGTERM) == 0
    service.said(rf"attempt ended: errored .*job={job} .*cause=infra.host_stopping")
    nothing_left(service)


def test_a_failure_of_the_host_is_tried_again_and_one_of_the_user_is_not(host: Make) -> None:
    service = host(MAX_ATTEMPTS="2")
    refusal = service.state / "noop" / "refuse-tiny"
    refusal.write_text("no such network\n")
    job = service.submit("true")
    service.said(rf"attempt ended: errored .*job={job} .*cause=infra.hypervisor .*next=\"attempt 2\"")
    service.said(rf"attempt is done .*job={job} label=tiny attempt=1")
    assert "the next is in" in service.ask("why", job=job)["why"]
    refusal.unlink()
    service.said(rf"attempt ended: succeeded .*job={job} label=tiny attempt=2")
    found = service.ask("job", job=job)
    assert [attempt["cause"] for attempt in found["attempts"]] == ["infra.hypervisor", None]


def test_a_job_that_waits_for_another_attempt_can_be_cancelled(host: Make) -> None:
    service = host(MAX_ATTEMPTS="3")
    (service.state / "noop" / "refuse-tiny").write_text("no such network\n")
    job = service.submit("true")
    service.said(rf"attempt ended: errored .*job={job}")
    assert terminal_events(service, job, lambda: service.ask("cancel", job=job))["cause"] == "user.cancelled"
    service.said(rf"job cancelled: .*job={job}")


def test_after_the_last_attempt_the_job_ends_with_what_the_host_failed_at(host: Make) -> None:
    service = host(MAX_ATTEMPTS="2")
    (service.state / "noop" / "refuse-tiny").write_text("no such network\n")
    event = service.outcome("true")
    assert (event["state"], event["cause"], event["attempt"]) == ("errored", "infra.hypervisor", 2)


def test_a_retry_that_waits_survives_a_restart(host: Make) -> None:
    service = host(MAX_ATTEMPTS="2")
    refusal = service.state / "noop" / "refuse-tiny"
    refusal.write_text("no such network\n")
    job = service.submit("true")
    service.said(rf"attempt is done .*job={job}")
    service.end(signal.SIGKILL)
    refusal.unlink()
    service.start()
    service.said(rf"attempt ended: succeeded .*job={job} label=tiny attempt=2")


def test_what_nobody_owns_is_removed_and_what_others_own_is_not(host: Make) -> None:
    service = host()
    owner = service.ask("status")["owner"]
    assert service.end() == 0
    ours, others = (f"solstice-{whose}-{uuid.uuid4()}-1" for whose in (owner, "0" * 12))
    for name in (ours, others):
        (service.state / "noop" / name).write_text("running")
    stray = service.state / "jobs" / str(uuid.uuid4()) / "1" / "vm"
    stray.mkdir(parents=True)
    service.start()
    assert [path.name for path in (service.state / "noop").iterdir()] == [others]
    assert not stray.exists()


def test_old_jobs_are_forgotten_with_their_logs_by_the_supervisor(host: Make) -> None:
    service = host()
    job = lasting(service, 0)
    service.done(job)
    assert service.command("db", "prune", "--older-than", "1h").stdout == "forgot 0 jobs\n"
    assert (service.state / "jobs" / job).exists()
    until(lambda: not service.ask("status")["active"], seconds=20, what="the end", evidence=str)
    assert service.command("db", "prune", "--older-than", "0").stdout == "forgot 1 jobs\n"
    assert not (service.state / "jobs" / job).exists()
    assert service.ask("jobs") == []


def test_every_report_is_in_the_database_once_with_its_number(host: Make, database_url: str) -> None:
    service = host()
    job = lasting(service, 2)
    service.end(signal.SIGKILL)
    service.start()
    service.done(job)
    assert service.end() == 0
    engine = create_engine(database_url)
    with engine.connect() as database:
        statement = text("select number, report from events where job = :job order by number")
        rows = [tuple(row) for row in database.execute(statement, {"job": job})]
    engine.dispose()
    assert [number for number, _ in rows] == sorted({number for number, _ in rows})
    assert "succeeded" in json.dumps(rows)


@pytest.mark.postgresql
def test_while_postgresql_is_away_jobs_go_on_and_afterwards_all_is_stored_and_published(
    reachable: Path, vhost: str, postgresql: Postgresql
) -> None:
    with postgresql.database() as url:
        service = Service(reachable, vhost, None, DATABASE_URL=url, MAX_CONCURRENCY="4", CAPACITY_MAP="")
        service.start()
        try:
            running = [lasting(service, 5) for _ in range(3)]
            workers = [service.worker(job) for job in running]
            postgresql.crash()
            new = service.submit("true")
            psutil.wait_procs(workers, timeout=60)
            assert not [worker for worker in workers if worker.is_running()], "they wait for the database"
            assert "not answering" in service.ask("status")["store"] or service.text.count("database")
            postgresql.start()
            for job in (*running, new):
                service.said(rf"attempt ended: succeeded .*job={job}", seconds=120)
                service.done(job)
            nothing_left(service)
        finally:
            service.close()
