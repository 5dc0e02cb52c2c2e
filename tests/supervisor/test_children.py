"""The real fork server and real workers on noop, as the supervisor's loop sees them."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from solstice.lifecycle import JobState, Phase
from solstice.model import AttemptId, Outcome
from solstice.protocol import attach, lines, order, reports
from solstice.supervisor import forkclient
from solstice.supervisor.children import Worker, errand
from tests.supervisor.scenes import OWNER, Attempt, forkserver, run, server_process


async def heard(worker: Worker) -> list[reports.Said]:
    return [each.report async for each in worker.reports()]


def test_a_worker_reports_each_phase_and_its_outcome_and_ends_with_status_0(reachable: Path) -> None:
    async def scenario() -> None:
        async with forkserver() as server:
            worker = await Worker.start(server, Attempt(reachable).order)
            said = await heard(worker)
            phases = [report.phase for report in said if isinstance(report, reports.PhaseEntered)]
            assert phases == [Phase.PREPARING, Phase.BOOTING, Phase.RUNNING, Phase.CLEANING]
            (ended,) = [report for report in said if isinstance(report, reports.Ended)]
            assert ended.outcome.state is JobState.SUCCEEDED
            assert said[-1] == reports.Done()
            assert await worker.end() == "it ended with exit status 0"
            assert await worker.end() == "it ended with exit status 0"

    run(scenario())


def test_a_stopped_fork_server_stops_nobody_and_forks_when_it_goes_on(reachable: Path) -> None:
    async def scenario() -> None:
        async with forkserver() as server:
            process = server_process()
            process.suspend()
            workers = [await Worker.start(server, Attempt(reachable).order) for _ in range(3)]
            assert [worker.pid for worker in workers] == [0, 0, 0]
            process.resume()
            for worker in workers:
                assert (await heard(worker))[-1] == reports.Done()
                await worker.end()

    run(scenario())


def test_a_fork_server_that_hangs_is_replaced(reachable: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forkclient, "FORK_TIMEOUT", 0.5)

    async def scenario() -> None:
        async with forkserver() as server:
            hung = server_process()
            hung.suspend()
            lost = await Worker.start(server, Attempt(reachable).order)
            await heard(lost)
            await lost.end()
            assert server_process().pid != hung.pid
            worker = await Worker.start(server, Attempt(reachable).order)
            assert (await heard(worker))[-1] == reports.Done()
            await worker.end()

    run(scenario())


def test_of_a_worker_that_is_gone_all_is_heard_that_stands_before_a_damaged_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    said: list[reports.Report] = [
        reports.Identity(OWNER, 7, 1.5, "job", 1),
        reports.PhaseEntered(Phase.BOOTING),
        reports.Done(),
    ]
    whole = [lines.encode(reports.encode(report, number, 1.5)) for number, report in enumerate(said)]
    (tmp_path / attach.JOURNAL).write_bytes(b"".join([whole[0], whole[1], b"\0\0\0\n", whole[2]]))

    async def scenario() -> None:
        assert await heard(Worker.adopt(tmp_path, attach.FROM_THE_START)) == said[:2]
        assert await heard(Worker.adopt(tmp_path, 0)) == said[1:2]

    run(scenario())
    assert f"{tmp_path}/{attach.JOURNAL}:3: " in caplog.text


def test_an_errand_that_takes_too_long_is_killed(reachable: Path) -> None:
    async def scenario() -> None:
        async with forkserver() as server:
            server_process().suspend()
            answer = await errand(server, order.List(Attempt(reachable).hypervisor, OWNER, reachable), 0.2)
            server_process().resume()
            assert answer is None

    run(scenario())


def test_a_list_names_what_it_found(reachable: Path) -> None:
    async def scenario() -> None:
        id = AttemptId(OWNER, str(uuid.uuid4()), 1)
        where = Attempt(reachable).hypervisor
        (Path(where.uri) / id.name).write_text("running")
        async with forkserver() as server:
            answer = await errand(server, order.List(where, OWNER, reachable / "jobs"), 30.0)
            assert answer == reports.Found(names=(id.name,))

    run(scenario())


def test_a_stop_goes_to_the_worker_with_its_outcome() -> None:
    stop = order.Stop(Outcome(JobState.ERRORED), hurry=True)
    assert order.decode_stop(order.encode_stop(stop)) == stop
