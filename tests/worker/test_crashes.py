"""A worker killed at each point of its life leaves a journal that can be read, and a VM that a cleaner removes.

Noop has nothing to collect, and no cleaning that fails: these two reports' points are not reached here.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from solstice.host import racepoints
from solstice.protocol import reports
from tests.racing import Race
from tests.worker.forked import FOR_EVER, WHOLE, Forks, clean_order, hear, leftovers, noop_order, rest, words

NOT_ON_NOOP = ("worker.step.", "worker.collecting.", "worker.failed.")
POINTS = sorted(p for p in racepoints.POINTS if p.startswith("worker.") and not p.startswith(NOT_ON_NOOP))
REPORTS = [point for point in POINTS if point.split(".")[1] in WHOLE]
STEPS = [point for point in POINTS if point not in REPORTS]
# How many lines the journal has when a step begins, and when it is done.
LINES = {"listen": 0, "prepare": 2, "start": 3, "destroy": 6, "remove": 6, "leave": 7}


@pytest.fixture(scope="module")
def race(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Race]:
    points = Race(tmp_path_factory.mktemp("race") / "points")
    yield points
    points.close()


@pytest.fixture(scope="module")
def forks(race: Race) -> Iterator[Forks]:
    """A fork server whose workers stop where they are told to."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(racepoints.VARIABLE, str(race.folder))
        server = Forks()
    yield server
    server.forget()


def kill_at(point: str, race: Race, forks: Forks, folder: Path) -> tuple[list[str], list[str]]:
    """The words that the journal has, and those that were said, of a worker killed at `point`; its VM is gone."""
    race.arm(point)
    worker = forks.run(noop_order(folder))
    assert race.reached() == (point, worker.pid)
    os.kill(worker.pid, signal.SIGKILL)
    assert forks.status(worker) == -signal.SIGKILL
    said = rest(worker.pipe)
    written = worker.said()
    assert said == written[: len(said)]
    assert words(forks.errand(clean_order(worker.what))) == ["done"]
    assert leftovers(worker.what) == []
    assert not worker.socket.exists()
    return words(written), words(said)


@pytest.mark.parametrize("point", REPORTS)
def test_a_worker_killed_around_a_report(race: Race, forks: Forks, reachable: Path, point: str) -> None:
    _, word, moment = point.split(".")
    before = WHOLE[: WHOLE.index(word)]
    written, said = kill_at(point, race, forks, reachable)
    assert written == (before if moment == "unwritten" else [*before, word])
    assert said == ([*before, word] if moment == "said" else before)


@pytest.mark.parametrize("point", STEPS)
def test_a_worker_killed_around_a_step(race: Race, forks: Forks, reachable: Path, point: str) -> None:
    lines = LINES[point.split(".")[1]]
    assert kill_at(point, race, forks, reachable) == (WHOLE[:lines], WHOLE[:lines])


@pytest.mark.parametrize("point", sorted(p for p in racepoints.POINTS if p.startswith("cleaner.")))
def test_what_a_killed_cleaner_left_is_removed_by_the_next(
    race: Race, forks: Forks, reachable: Path, point: str
) -> None:
    worker = forks.run(noop_order(reachable, FOR_EVER))
    hear(worker.pipe, "running")
    os.kill(worker.pid, signal.SIGKILL)
    assert forks.status(worker) == -signal.SIGKILL
    race.arm(point)
    pipe = forks.begin(clean_order(worker.what))
    reached, cleaner = race.reached()
    assert reached == point
    os.kill(cleaner, signal.SIGKILL)
    assert rest(pipe) == []
    pipe.close()
    assert words(forks.errand(clean_order(worker.what))) == ["done"]
    assert leftovers(worker.what) == []


def test_what_stopped_at_a_point_goes_on_and_stops_there_once(race: Race, forks: Forks, reachable: Path) -> None:
    race.arm("worker.start.before")
    worker = forks.run(noop_order(reachable))
    assert race.reached() == ("worker.start.before", worker.pid)
    assert words(rest(forks.run(noop_order(reachable)).pipe)) == WHOLE
    os.kill(worker.pid, signal.SIGCONT)
    assert words(rest(worker.pipe)) == WHOLE


def test_a_supervisor_that_comes_while_the_report_is_being_written_hears_it_once(
    race: Race, forks: Forks, reachable: Path
) -> None:
    race.arm("worker.running.written")
    worker = forks.run(noop_order(reachable))
    race.reached()
    channel = worker.attach(after=1)
    os.kill(worker.pid, signal.SIGCONT)
    assert words(rest(channel)) == WHOLE[2:]
    channel.close()


def test_a_point_that_nobody_has_named_is_an_error(race: Race, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(racepoints, "_folder", str(race.folder))
    with pytest.raises(KeyError):
        racepoints.reach("worker.lunch.before")


def test_every_report_has_its_points() -> None:
    found = {"found"}  # an errand's
    kinds = {kind for kind in reports._KINDS if kind != "phase"} - found
    assert {f"worker.{kind}.written" for kind in kinds} <= racepoints.POINTS
