"""The real fork server and real workers on noop, as the supervisor's loop sees them."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import uuid
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from solstice.lifecycle import JobState, Phase
from solstice.model import AttemptId, Backend, DiskFormat, JobRequest, Outcome, Step, VmSpec
from solstice.protocol import order, reports
from solstice.supervisor import forkclient
from solstice.supervisor.children import Worker, errand
from solstice.supervisor.forkclient import ForkServer

OWNER = "0123456789ab"


def run(scenario: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await scenario

    asyncio.run(bounded())


def noop(folder: Path) -> order.Hypervisor:
    (folder / "noop").mkdir(exist_ok=True)
    return order.Hypervisor(Backend.NOOP, uri=str(folder / "noop"))


def attempt(folder: Path) -> order.Run:
    job = str(uuid.uuid4())
    id = AttemptId(OWNER, job, 1)
    record = folder / job[:4]
    vm = VmSpec(id, "label", Path("/x"), DiskFormat.RAW, record / "vm")
    request = JobRequest(job, "label", (Step("one", "true"),))
    return order.Run(noop(folder), vm, request, order.Limits(5, 5, 5), record)


@asynccontextmanager
async def forkserver() -> AsyncIterator[ForkServer]:
    server = ForkServer()
    server.start()
    try:
        yield server
    finally:
        await server.close()


async def heard(worker: Worker) -> list[reports.Report]:
    return [report async for report, _at in worker.reports()]


def server_process() -> psutil.Process:
    (found,) = [child for child in psutil.Process().children() if "forkserver" in " ".join(child.cmdline())]
    return found


def test_a_worker_reports_each_phase_and_its_outcome_and_ends_with_status_0(reachable: Path) -> None:
    async def scenario() -> None:
        async with forkserver() as server:
            worker = await Worker.start(server, attempt(reachable))
            said = await heard(worker)
            phases = [report.phase for report in said if isinstance(report, reports.PhaseEntered)]
            assert phases == [Phase.PREPARING, Phase.BOOTING, Phase.RUNNING, Phase.CLEANING]
            (ended,) = [report for report in said if isinstance(report, reports.Ended)]
            assert ended.outcome.state is JobState.SUCCEEDED
            assert said[-1] == reports.Done()
            assert await worker.end() == "it ended with exit status 0"
            assert await worker.end() == "it ended with exit status 0"

    run(scenario())


def test_how_a_worker_ended_is_told_by_its_status() -> None:
    async def scenario() -> None:
        async with forkserver() as server:
            ours, theirs = socket.socketpair()
            pids: asyncio.Queue[int] = asyncio.Queue()
            statuses: asyncio.Queue[int] = asyncio.Queue()

            def on_pid(pid: int, pidfd: int) -> None:
                os.close(pidfd)
                pids.put_nowait(pid)

            server.fork(theirs, on_pid, statuses.put_nowait)
            # it has no order yet, so it is there for certain
            os.kill(await pids.get(), signal.SIGKILL)
            assert await statuses.get() == -signal.SIGKILL
            ours.close()

    run(scenario())


def test_a_stopped_fork_server_stops_nobody_and_forks_when_it_goes_on(reachable: Path) -> None:
    async def scenario() -> None:
        async with forkserver() as server:
            process = server_process()
            process.suspend()
            workers = [await Worker.start(server, attempt(reachable)) for _ in range(3)]
            assert [worker.pid for worker in workers] == [0, 0, 0]
            process.resume()
            for worker in workers:
                assert (await heard(worker))[-1] == reports.Done()
                await worker.end()

    run(scenario())


def test_a_fork_server_that_dies_is_replaced(reachable: Path) -> None:
    async def scenario() -> None:
        async with forkserver() as server:
            first = server_process()
            os.kill(first.pid, signal.SIGKILL)
            while first.is_running() and first.status() != psutil.STATUS_ZOMBIE:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)
            worker = await Worker.start(server, attempt(reachable))
            assert (await heard(worker))[-1] == reports.Done()
            await worker.end()

    run(scenario())


def test_a_fork_server_that_hangs_is_replaced(reachable: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forkclient, "FORK_TIMEOUT", 0.5)

    async def scenario() -> None:
        async with forkserver() as server:
            hung = server_process()
            hung.suspend()
            lost = await Worker.start(server, attempt(reachable))
            await heard(lost)
            await lost.end()
            assert server_process().pid != hung.pid
            worker = await Worker.start(server, attempt(reachable))
            assert (await heard(worker))[-1] == reports.Done()
            await worker.end()

    run(scenario())


def test_an_errand_that_takes_too_long_is_killed(reachable: Path) -> None:
    async def scenario() -> None:
        async with forkserver() as server:
            server_process().suspend()
            answer = await errand(server, order.Sweep(noop(reachable), OWNER, reachable), 0.2)
            server_process().resume()
            assert answer is None

    run(scenario())


def test_a_sweep_names_what_it_removed(reachable: Path) -> None:
    async def scenario() -> None:
        id = AttemptId(OWNER, str(uuid.uuid4()), 1)
        where = noop(reachable)
        (Path(where.uri) / id.name).write_text("running")
        async with forkserver() as server:
            answer = await errand(server, order.Sweep(where, OWNER, reachable / "jobs"), 30.0)
            assert answer == reports.Found(removed=(id.name,))

    run(scenario())


def test_a_stop_goes_to_the_worker_with_its_outcome() -> None:
    stop = order.Stop(Outcome(JobState.ERRORED), hurry=True)
    assert order.decode_stop(order.encode_stop(stop)) == stop
