"""A supervisor takes over workers that another one started, whatever they are at: real workers on noop."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from solstice.errors import Cause
from solstice.lifecycle import Phase
from solstice.protocol import attach, reports
from solstice.supervisor import attaching, children
from solstice.supervisor.children import Worker
from solstice.worker.link import BACKLOG
from tests.worker.forked import FOR_EVER, Forked, Forks, hear, leftovers, noop_order


@pytest.fixture
def forks() -> Iterator[Forks]:
    server = Forks()
    yield server
    server.forget()


@pytest.fixture
def running(forks: Forks, reachable: Path) -> Forked:
    """A worker whose VM runs, and whose supervisor has gone."""
    worker = forks.run(noop_order(reachable, FOR_EVER))
    hear(worker.pipe, "running")
    worker.pipe.close()
    return worker


def adopted(record: Path, patience: float = 20.0) -> tuple[list[reports.Said], str, Worker]:
    """All that an adopted worker says until its end, and how it ended."""

    async def scenario() -> tuple[list[reports.Said], str, Worker]:
        worker = Worker.adopt(record, attach.FROM_THE_START)
        said = [heard.report async for heard in worker.reports(lambda: patience)]
        return said, await worker.end(), worker

    return asyncio.run(scenario())


def test_a_worker_that_is_stopped_is_found_to_hang_and_killed(running: Forked) -> None:
    os.kill(running.pid, signal.SIGSTOP)
    said, ending, worker = adopted(running.what.record, patience=0.5)
    running.wait()
    assert (ending, worker.hangs, worker.pid) == ("it hung and was killed", True, running.pid)
    assert len(said) == len(running.said()), "its journal was read"


def test_a_worker_that_lets_nobody_in_any_more_is_killed_by_what_its_journal_says(
    running: Forked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attaching, "BUSY_LIMIT", 0.0)
    os.kill(running.pid, signal.SIGSTOP)
    with ExitStack() as stack:
        for _ in range(BACKLOG + 1):
            sock = stack.enter_context(socket.socket(socket.AF_UNIX))
            sock.setblocking(False)
            sock.connect(str(running.socket))
        _said, ending, worker = adopted(running.what.record)
    running.wait()
    assert (ending, worker.pid) == ("it hung and was killed", running.pid)


def test_a_process_that_only_has_the_pid_of_a_worker_is_not_killed(
    running: Forked, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    line = running.journal.read_bytes().splitlines()[0]
    running.journal.write_bytes(line.replace(b'"pid":%d' % running.pid, b'"pid":%d' % os.getpid()) + b"\n")
    monkeypatch.setattr(attaching, "BUSY_LIMIT", 0.0)
    running.socket.unlink()
    with socket.socket(socket.AF_UNIX) as crowded, socket.socket(socket.AF_UNIX) as first:
        crowded.bind(str(running.socket))
        crowded.listen(0)
        first.connect(str(running.socket))
        _said, _ending, worker = adopted(running.what.record)
    assert worker.pid == 0, "or this test would not have come to its end"


def test_who_listens_without_having_begun_the_journal_is_not_the_worker(running: Forked) -> None:
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    running.socket.unlink()
    with socket.socket(socket.AF_UNIX) as impostor:
        impostor.bind(str(running.socket))
        impostor.listen()
        said, ending, worker = adopted(running.what.record)
    assert (worker.pid, ending) == (0, "it was gone")
    assert [reports.kind_of(report) for report in said] == ["identity", "phase", "phase", "phase"]  # type: ignore[arg-type]


def test_a_worker_that_comes_after_its_attempt_was_given_up_touches_nothing(forks: Forks, reachable: Path) -> None:
    what = noop_order(reachable)
    said, ending, worker = adopted(what.record)
    assert (said, ending, worker.was_lost) == ([], "it was gone", True)
    late = forks.run(what)
    (failed,) = hear(late.pipe, "failed")
    assert failed["report"]["cause"] == Cause.HOST_LOST
    late.wait()
    assert not leftovers(what)
    assert [path.name for path in what.record.iterdir()] == [attach.CLOSED]


def test_a_worker_that_listens_is_met_although_its_record_is_being_closed(running: Forked) -> None:
    running.socket.rename(running.socket.with_name("hidden"))

    class Late(Worker):
        """Its worker comes to its door while the record is being closed."""

        async def _meet(self, record: Path) -> bool:
            met = await super()._meet(record)
            if not met:
                running.socket.with_name("hidden").rename(running.socket)
            return met

    async def scenario() -> reports.Said:
        worker = Late.adopt(running.what.record, attach.FROM_THE_START)
        first = await anext(worker.reports())
        worker.kill()
        await worker.end()
        return first.report

    assert isinstance(asyncio.run(scenario()), reports.Identity)
    assert (running.what.record / attach.CLOSED).exists()


def test_a_supervisor_that_was_itself_stopped_does_not_take_its_workers_for_hung(forks: Forks, reachable: Path) -> None:
    what = noop_order(reachable, "1")
    hear(forks.run(what).pipe, "running")

    async def scenario() -> tuple[list[reports.Said], bool]:
        worker = Worker.adopt(what.record, attach.FROM_THE_START)
        said = []
        async for heard in worker.reports(lambda: 0.2):
            said.append(heard.report)
            if heard.report == reports.PhaseEntered(Phase.RUNNING):
                time.sleep(2.0)
        await worker.end()
        return said, worker.hangs

    said, hangs = asyncio.run(scenario())
    assert (said[-1], hangs) == (reports.Done(), False)


def test_a_journal_that_cannot_be_read_is_given_up_in_the_end(
    reachable: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(children, "UNREADABLE_LIMIT", 0.0)
    (reachable / attach.JOURNAL).mkdir()  # EISDIR, as a disk might say EIO
    said, ending, _worker = adopted(reachable)
    assert (said, ending) == ([], "it was gone")
    assert f"{reachable / attach.JOURNAL} cannot be read, and is given up" in caplog.text
