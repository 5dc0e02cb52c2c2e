"""PostgreSQL is away in the middle of jobs: they go on, and afterwards all is stored and published; on noop."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.crash.leftovers import look_for_leftovers
from tests.crash.matrix import ALL
from tests.crash.results import Results
from tests.e2e.service import Service
from tests.real.postgresql import Postgresql

pytestmark = [pytest.mark.broker, pytest.mark.postgresql]

AWAY = 60.0 if os.environ.get(ALL) else 10.0
SECONDS = 120.0
# What goes, and what brings it back: its processes stand still; it ends in order; it ends at once, and recovers.
WAYS = {
    "frozen": (Postgresql.freeze, Postgresql.thaw),
    "stopped": (Postgresql.stop, Postgresql.start),
    "crashed": (Postgresql.crash, Postgresql.start),
}


@pytest.fixture
def service(reachable: Path, vhost: str, postgresql: Postgresql) -> Iterator[Service]:
    with postgresql.database() as url:
        service = Service(reachable, vhost, None, DATABASE_URL=url, MAX_CONCURRENCY="4", CAPACITY_MAP="")
        service.start()
        yield service
        service.close()


@pytest.mark.parametrize("how", WAYS)
def test_jobs_go_on_without_postgresql_and_then_all_is_stored_and_published(
    service: Service, postgresql: Postgresql, how: str
) -> None:
    leave, come_back = WAYS[how]
    ending = [service.submit("true", env={"NOOP_SECONDS": f"{AWAY / 3:.1f}"}) for _ in range(2)]
    lasting = service.submit("true", env={"NOOP_SECONDS": f"{AWAY + 3}"})
    service.said("attempt is running", times=3)
    workers = [service.worker(job) for job in ending]
    outlasting = service.worker(lasting)
    leave(postgresql)
    back = time.monotonic() + AWAY
    try:
        waiting = service.submit("true")
        assert not psutil.wait_procs(workers, timeout=AWAY)[1], "they wait for the database"
        assert outlasting.is_running()
        service.said("database")
        assert service.ask("status")["store"] != "ok"
        time.sleep(max(0.0, back - time.monotonic()))
        assert "attempt ended" not in service.text
    finally:
        come_back(postgresql)
    jobs = [*ending, lasting, waiting]
    results = Results(service.amqp_url)
    results.wait(jobs, SECONDS)
    for job in jobs:
        service.done(job)
        stored = service.ask("job", job=job)
        assert (stored["job"]["state"], len(stored["attempts"])) == ("succeeded", 1)
    results.wait([], SECONDS)
    assert {job: (ended.states, list(ended.ids.values())) for job, ended in results.of.items()} == {
        job: ({"succeeded"}, [1]) for job in jobs
    }
    look_for_leftovers(service, jobs)
