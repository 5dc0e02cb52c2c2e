"""The real fork server and its client: what happens to the processes when one of the two is stopped, hung or gone."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from solstice.host import processes
from solstice.lifecycle import Phase
from solstice.model import Backend
from solstice.protocol import order, reports
from solstice.protocol.lines import Lines, Message, encode
from solstice.supervisor import forkclient
from solstice.supervisor.children import Heard, Worker, errand
from solstice.supervisor.forkclient import ForkServer
from tests.supervisor.scenes import OWNER, Attempt, forkserver, gone, run, server_process


def descriptors() -> int:
    return psutil.Process().num_fds()


async def held(server: ForkServer, attempt: Attempt) -> tuple[Worker, AsyncIterator[Heard]]:
    """A worker that is in the middle of its attempt, and the reports that are still to come."""
    worker = await Worker.start(server, attempt.order)
    said = worker.reports()
    assert isinstance((await anext(said)).report, reports.Identity)
    assert (await anext(said)).report == reports.PhaseEntered(Phase.PREPARING)
    return worker, said


async def last(said: AsyncIterator[Heard]) -> reports.Said | None:
    heard = [each.report async for each in said]
    return heard[-1] if heard else None


async def opened_by(folder: Path) -> dict[int, str]:
    """What a held worker has open, once it has written the seed and waits at the FIFO."""
    while True:
        opened = {int(entry.name): str(entry.readlink()) for entry in folder.iterdir()}
        if not [link for link in opened.values() if "seed" in link]:
            return opened
        await asyncio.sleep(0.01)


async def done(server: ForkServer, attempt: Attempt) -> bool:
    """True when a worker can be had and carries its attempt out."""
    worker = await Worker.start(server, attempt.order)
    report = await last(worker.reports())
    await worker.end()
    return report == reports.Done()


class Raw:
    """A worker to which the test speaks itself."""

    def __init__(self, server: ForkServer) -> None:
        self.ours, theirs = socket.socketpair()
        self.ours.setblocking(False)
        self.inode = os.fstat(theirs.fileno()).st_ino
        self.pid: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.status: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        server.fork(theirs, self._on_pid, self.status.set_result)

    def _on_pid(self, pid: int, pidfd: int) -> None:
        os.close(pidfd)
        self.pid.set_result(pid)

    async def say(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.ours, data)

    async def hear(self, at_least: int) -> list[Message]:
        """So many messages, or all up to the end of the stream."""
        lines, heard = Lines(), list[Message]()
        while len(heard) < at_least and (data := await asyncio.get_running_loop().sock_recv(self.ours, 1 << 16)):
            heard.extend(lines.feed(data))
        return heard


def test_reports_are_numbered_from_0_without_a_gap(reachable: Path) -> None:
    async def scenario() -> None:
        async with forkserver() as server:
            worker = Raw(server)
            await worker.say(encode(order.encode(Attempt(reachable).order)))
            said = await worker.hear(100)
            assert [message["type"] for message in said] == ["identity", *["phase"] * 3, "outcome", "phase", "done"]
            assert [message["n"] for message in said] == [0, 1, 2, 3, 4, 5, 6]
            assert await worker.status == 0
            worker.ours.close()

    run(scenario())


def test_a_killed_worker_is_told_from_one_that_ended(reachable: Path) -> None:
    async def scenario() -> None:
        async with forkserver() as server:
            attempt = Attempt(reachable)
            attempt.hold()
            worker, said = await held(server, attempt)
            os.kill(worker.pid, signal.SIGKILL)
            assert await last(said) is None
            assert await worker.end() == "it was killed by SIGKILL"

    run(scenario())


def test_more_forks_than_the_socket_takes_are_kept_until_the_server_goes_on() -> None:
    async def scenario() -> None:
        async with forkserver() as server:
            process = server_process()
            process.suspend()
            workers = [Raw(server) for _ in range(400)]
            process.resume()
            for worker in workers:
                worker.ours.close()  # it goes away before it has said anything: that is no fault
            assert [await worker.status for worker in workers] == [0] * 400

    run(scenario())


def test_workers_outlive_a_fork_server_that_is_killed_and_the_next_one_forks(reachable: Path) -> None:
    async def scenario() -> None:
        async with forkserver() as server:
            attempt = Attempt(reachable)
            release = attempt.hold()
            worker, said = await held(server, attempt)
            first = server_process()
            first.kill()
            assert await gone(first.pid)
            assert await done(server, Attempt(reachable))
            assert server_process().pid != first.pid
            release()
            assert await last(said) == reports.Done()
            assert await worker.end() == "it closed its pipe"

    run(scenario())


def test_workers_outlive_a_fork_server_that_ends_at_eof(reachable: Path) -> None:
    async def scenario() -> None:
        async with forkserver() as server:
            attempt = Attempt(reachable)
            release = attempt.hold()
            worker, said = await held(server, attempt)
            process = server_process()
            await server.close()
            assert not process.is_running()
            assert psutil.pid_exists(worker.pid)
            release()
            assert await last(said) == reports.Done()
            await worker.end()
            assert await gone(worker.pid)

    run(scenario())


def test_closed_while_its_server_is_stopped_it_kills_the_server_and_lets_go_of_every_channel(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(forkclient, "FORK_TIMEOUT", 0.2)
    monkeypatch.setattr(forkclient, "END_TIMEOUT", 0.5)

    async def scenario() -> None:
        faults: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: faults.append(context))
        async with forkserver() as server:
            process = server_process()
            process.suspend()
            workers = [Raw(server) for _ in range(400)]
            await server.close()
            assert not process.is_running()
            for worker in workers:
                assert await worker.hear(1) == []
                worker.ours.close()
        assert faults == []

    run(scenario())


@pytest.mark.parametrize("garbage", [b"\xff\n", b"[1]\n", b"{}\n", b'{"v": 1, "type": "run", "order": {}}\n'])
def test_a_worker_that_is_told_nonsense_ends_and_says_why(garbage: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    async def scenario() -> None:
        async with forkserver() as server:
            worker = Raw(server)
            await worker.say(garbage)
            assert await worker.hear(1) == []
            assert await worker.status == 1
            worker.ours.close()

    run(scenario())
    said = capfd.readouterr().err
    assert "Traceback" in said
    assert "solstice.protocol" in said.splitlines()[-1]


def test_a_worker_has_its_channel_session_socket_and_journal_open_and_nothing_else(reachable: Path) -> None:
    async def scenario() -> None:
        with (reachable / "secret").open("w") as ours:
            os.set_inheritable(ours.fileno(), True)
            async with forkserver() as server:
                other = Raw(server)
                attempt = Attempt(reachable)
                release = attempt.hold()
                worker = Raw(server)
                await worker.say(encode(order.encode(attempt.order)))
                await worker.hear(2)
                folder = Path(f"/proc/{await worker.pid}/fd")
                opened = await opened_by(folder)
                assert opened.pop(0) == os.devnull
                assert opened.pop(1) == opened.pop(2) == str(Path("/proc/self/fd/2").readlink())
                assert f"socket:[{worker.inode}]" in opened.values()
                rest = [link for link in opened.values() if link != f"socket:[{worker.inode}]"]
                # its session, its own socket, its journal
                kinds = sorted(Path(link).name.split(":")[0] for link in rest)
                assert kinds == ["events.jsonl", "socket", "socket"]
                assert f"socket:[{other.inode}]" not in rest
                release()
                await worker.status
                worker.ours.close()
                other.ours.close()
                await other.status

    run(scenario())


def test_an_errand_given_up_before_its_fork_is_killed_right_after_it(reachable: Path) -> None:
    async def scenario() -> None:
        async with forkserver() as server:
            process = server_process()
            process.suspend()
            attempt = Attempt(reachable)
            attempt.hold()
            assert await errand(server, attempt.order, 0.2) is None
            before = descriptors()
            process.resume()
            # the server forks in order: when this one is done, the one that was given up has been forked as well
            assert await done(server, Attempt(reachable))
            for left in process.children():
                assert await gone(left.pid)
            assert descriptors() == before

    run(scenario())


def test_a_worker_that_speaks_nonsense_is_killed() -> None:
    class Liar(ForkServer):
        """Forks nothing: starts a program that echoes its order, which is no report, and then stays."""

        def fork(
            self, channel: socket.socket, on_pid: Callable[[int, int], None], on_status: Callable[[int], None]
        ) -> None:
            process = processes.spawn("tests.host.spawned", channel)
            channel.close()
            pidfd = os.pidfd_open(process.pid)
            on_pid(process.pid, os.dup(pidfd))
            loop = asyncio.get_running_loop()

            def reap() -> None:
                loop.remove_reader(pidfd)
                os.close(pidfd)
                on_status(process.wait(0))

            loop.add_reader(pidfd, reap)

    async def scenario() -> None:
        worker = await Worker.start(Liar(), order.List(order.Hypervisor(Backend.NOOP), OWNER, Path("/x")))
        assert await last(worker.reports()) is None
        assert await worker.end() == "it was killed by SIGKILL"

    run(scenario())


def test_a_fork_server_that_cannot_be_started_at_once_is_started_as_soon_as_it_can(
    reachable: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(forkclient, "RESTART_DELAY", 0.1)

    async def scenario() -> None:
        async with forkserver() as server:
            server_process().kill()
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
            try:
                while "no fork server can be started" not in caplog.text:
                    await asyncio.sleep(0.02)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            assert await done(server, Attempt(reachable))

    run(scenario())
