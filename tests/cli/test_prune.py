"""`solstice db prune`: logs and rows together, with a supervisor and without."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from solstice.host.places import Places
from tests.cli.supervisors import Supervisor
from tests.real.leftovers import MARKER
from tests.sources import ROOT
from tests.store.process import Store, accept, finish, new_job, running_store, start

DAY = 86400.0
Prune = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def places(reachable: Path) -> Places:
    places = Places(reachable / "state", reachable / "run")
    places.make()
    return places


@pytest.fixture
def prune(places: Places) -> Prune:
    def run(older_than: str, url: str = "sqlite:////nowhere/x.db") -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "solstice", "db", "prune", f"--older-than={older_than}"]
        argv += ["--run-dir", str(places.run), "--state-dir", str(places.state), "--database-url", url]
        environment = {MARKER: os.environ[MARKER], "PATH": os.environ["PATH"]}
        return subprocess.run(
            argv, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )

    return run


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    with running_store(database_url) as store:
        yield store


def ended(store: Store, places: Places, days_ago: float) -> str:
    """A job with logs, which ended some days ago."""
    job, at = new_job(), time.time() - days_ago * DAY
    store.result(**accept(job), host=places.owner())
    store.result(**start(job))
    store.result(**finish(job, at=at))
    for phase in ("cleaning", "done"):
        store.result("phase", job=job, attempt=1, phase=phase, at=at)
    record = places.jobs / job / "1"
    record.mkdir(parents=True)
    (record / "job.log").write_text("said\n")
    return job


def test_logs_and_rows_go_together(store: Store, places: Places, prune: Prune, database_url: str) -> None:
    old, recent = [ended(store, places, 31) for _ in range(3)], ended(store, places, 29)
    store.close()
    done = prune("30d", database_url)
    assert (done.returncode, done.stdout, done.stderr) == (0, "forgot 3 jobs\n", "")
    assert [path.name for path in places.jobs.iterdir()] == [recent]
    with running_store(database_url) as again:
        assert [job["id"] for job in again.result("jobs")["jobs"]] == [recent]
        assert len(again.result("outbox")["events"]) == 3 * len([*old, recent])
    assert prune("30d", database_url).stdout == "forgot 0 jobs\n"


def test_logs_that_were_gone_before_a_crash_do_not_keep_their_rows(
    store: Store, places: Places, prune: Prune, database_url: str
) -> None:
    job = ended(store, places, 31)
    (places.jobs / job / "1" / "job.log").unlink()
    (places.jobs / job / "1").rmdir()
    (places.jobs / job).rmdir()
    store.close()
    assert prune("12h", database_url).stdout == "forgot 1 jobs\n"


def test_logs_that_cannot_be_removed_keep_their_job_and_no_other(
    store: Store, places: Places, prune: Prune, database_url: str
) -> None:
    stuck, other = ended(store, places, 31), ended(store, places, 31)
    store.close()
    # a file where a directory is due: rmtree refuses it for root too
    (places.jobs / stuck).rename(places.state / "elsewhere")
    (places.jobs / stuck).write_text("")
    done = prune("30d", database_url)
    assert done.returncode == 1
    assert "1 jobs are kept, 1 forgotten: cannot remove" in done.stderr
    assert stuck in done.stderr
    assert not (places.jobs / other).exists()
    (places.jobs / stuck).unlink()
    assert prune("30d", database_url).stdout == "forgot 1 jobs\n"


def test_a_supervisor_does_it_where_there_is_one(places: Places, prune: Prune) -> None:
    answers: dict[str, Callable[[Any], Any]] = {"prune": lambda _asked: {"jobs": 7}}
    supervisor = Supervisor(places.run, answers)
    try:
        done = prune("90min")
    finally:
        supervisor.close()
    assert (done.returncode, done.stdout) == (0, "forgot 7 jobs\n")
    assert supervisor.asked == [{"v": 1, "cmd": "prune", "older_than": 5400.0}]


def test_a_supervisor_that_does_not_answer_is_not_gone_round(places: Places, prune: Prune) -> None:
    with places.locked():
        done = prune("30d")
    assert done.returncode == 2
    assert f"a supervisor with pid {os.getpid()} holds it" in done.stderr


@pytest.mark.parametrize("text", ["30", "d", "-3d", "3 d", "3w", "1e3d"])
def test_what_is_no_time_is_refused_with_an_example(prune: Prune, text: str) -> None:
    done = prune(text)
    assert done.returncode == 2
    assert "such as 30d" in done.stderr
