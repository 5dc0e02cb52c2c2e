"""Two versions on one host, as an upgrade leaves them: new supervisor and old worker, old supervisor and new worker."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from solstice.errors import Cause
from solstice.lifecycle import JobState, Phase
from solstice.model import Outcome
from solstice.protocol import order, reports
from solstice.supervisor.children import Worker
from tests.supervisor.scenes import run
from tests.worker.forked import FOR_EVER, Forks, hear, leftovers, noop_order

_OLD_WORKER = Path(__file__).with_name("worker_v1.py")
STOP = order.Stop(Outcome(JobState.ERRORED, Cause.HOST_STOPPING, "told to"))
PHASES = [Phase.PREPARING, Phase.BOOTING, Phase.RUNNING]
LAST = [reports.Ended(STOP.outcome), reports.PhaseEntered(Phase.CLEANING), reports.Done()]


@pytest.fixture
def old_worker(reachable: Path) -> Iterator[subprocess.Popen[bytes]]:
    argv = [sys.executable, "-I", str(_OLD_WORKER), str(reachable)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield process
        process.kill()


def test_a_worker_of_version_1_is_adopted_followed_and_stopped(
    reachable: Path, old_worker: subprocess.Popen[bytes]
) -> None:
    async def scenario() -> None:
        worker = Worker.adopt(reachable, last=0)
        said: list[reports.Said] = []
        async for heard in worker.reports():
            said.append(heard.report)
            if heard.report == reports.PhaseEntered(Phase.RUNNING):
                worker.stop(STOP)
        assert worker.pid == old_worker.pid
        assert said == [*map(reports.PhaseEntered, PHASES), *LAST]
        await worker.end()

    run(scenario())
    assert old_worker.wait(20) == 0


def test_a_worker_of_version_1_that_is_stopped_at_once_says_only_what_is_new(
    reachable: Path, old_worker: subprocess.Popen[bytes]
) -> None:
    async def scenario() -> None:
        worker = Worker.adopt(reachable, last=3)
        worker.stop(STOP)
        assert [heard.report async for heard in worker.reports()] == LAST
        await worker.end()

    run(scenario())


def test_a_supervisor_of_version_1_adopts_and_stops_a_worker_of_today(reachable: Path) -> None:
    forks = Forks()
    worker = forks.run(noop_order(reachable, FOR_EVER))
    hear(worker.pipe, "running")
    worker.pipe.close()
    outcome: dict[str, object] = {
        "state": "errored",
        "cause": "infra.host_stopping",
        "detail": "told to",
        "exit_code": None,
        "steps": [],
    }
    with socket.socket(socket.AF_UNIX) as sock, sock.makefile("rb") as lines:
        sock.connect(str(worker.socket))
        sock.sendall(b'{"v":1,"type":"attach","after":0}\n')
        said = [json.loads(lines.readline()) for _ in range(3)]
        assert [(message["v"], message["n"], message["type"]) for message in said] == [
            (1, number, "phase") for number in (1, 2, 3)
        ]
        stop = {"v": 1, "type": "stop", "stop": {"outcome": outcome, "hurry": True}}
        sock.sendall(json.dumps(stop).encode() + b"\n")
        rest = [json.loads(line) for line in lines]
    assert [message["report"].get("outcome") for message in rest if message["type"] == "outcome"] == [outcome]
    assert (rest[-1]["type"], rest[-1]["n"]) == ("done", 6)
    worker.wait()
    assert not leftovers(worker.what)
    forks.forget()
