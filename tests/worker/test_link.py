"""A link in pytest's own process: signs of life, supervisors that read late, and disks that are full."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from solstice.errors import Cause
from solstice.host import journal
from solstice.host.channel import Channel
from solstice.lifecycle import JobState, Phase
from solstice.model import Outcome
from solstice.protocol import attach, lines, reports, session
from solstice.worker.link import Link
from solstice.worker.watch import Watch
from tests.worker.forked import hear, rest, words

# More than a socket takes at once.
HUGE = reports.Ended(Outcome(JobState.ERRORED, Cause.HYPERVISOR, "x" * (1 << 20)))


@pytest.fixture
def pair() -> Iterator[tuple[Channel, Channel]]:
    ours, theirs = (Channel(sock) for sock in socket.socketpair())
    yield ours, theirs
    ours.close()
    theirs.close()


@pytest.fixture
def supervisor(pair: tuple[Channel, Channel]) -> Channel:
    return pair[1]


@pytest.fixture
def worker(pair: tuple[Channel, Channel], reachable: Path) -> Iterator[Link]:
    with Link(reachable, pair[0]) as opened:
        yield opened


@pytest.fixture
def connect(reachable: Path) -> Iterator[Callable[[], Channel]]:
    with contextlib.ExitStack() as stack:

        def connect() -> Channel:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.connect(str(reachable / attach.SOCKET))
            stack.callback(sock.close)
            return Channel(sock)

        yield connect


@contextlib.contextmanager
def limited(what: int, limit: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(what)
    resource.setrlimit(what, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(what, (soft, hard))


def full_disk(limit: int) -> contextlib.AbstractContextManager[None]:
    """No file can grow beyond `limit` bytes: a write takes what still fits, and the next one fails."""
    return limited(resource.RLIMIT_FSIZE, limit)


def no_descriptor_left() -> contextlib.AbstractContextManager[None]:
    lowest_free = os.dup(0)
    os.close(lowest_free)
    return limited(resource.RLIMIT_NOFILE, lowest_free)


def wait(worker: Link, seconds: float) -> None:
    """Let a worker that has nothing to hear wait so long."""
    silent, other = (Channel(sock) for sock in socket.socketpair())
    assert Watch(worker, silent).next(time.monotonic() + seconds) is None
    silent.close()
    other.close()


def test_a_worker_that_waits_shows_life_and_no_journal_has_it(
    monkeypatch: pytest.MonkeyPatch, pair: tuple[Channel, Channel], reachable: Path
) -> None:
    monkeypatch.setattr(reports, "HEARTBEAT", 0.05)
    with Link(reachable, pair[0]) as worker:
        worker.send(reports.PhaseEntered(Phase.RUNNING))
        wait(worker, 0.5)
        worker.send(reports.Done())
    said = rest(pair[1])
    assert set(words(said[1:-1])) == {"alive"}
    assert 2 <= len(said[1:-1]) <= 10
    assert {type(reports.decode(message)[0]) for message in said[1:-1]} == {reports.Alive}
    assert {reports.number(message) for message in said[1:-1]} == {None}
    assert [reports.number(said[0]), reports.number(said[-1])] == [0, 1]
    assert journal.read(reachable / attach.JOURNAL) == [said[0], said[-1]]


def test_events_that_come_all_the_time_keep_no_worker_from_showing_life(
    monkeypatch: pytest.MonkeyPatch, pair: tuple[Channel, Channel], reachable: Path
) -> None:
    monkeypatch.setattr(reports, "HEARTBEAT", 0.05)
    guest, ours = (Channel(sock) for sock in socket.socketpair())
    with Link(reachable, pair[0]) as worker:
        watch = Watch(worker, ours)
        until = time.monotonic() + 0.2
        while time.monotonic() < until:
            guest.send(session.encode(session.Told(session.Event.KERNEL)))
            assert watch.next(until + 1) is not None
    assert "alive" in words(rest(pair[1]))
    guest.close()
    ours.close()


def test_a_worker_that_waits_for_its_guest_to_shut_down_shows_life(
    monkeypatch: pytest.MonkeyPatch, pair: tuple[Channel, Channel], reachable: Path
) -> None:
    monkeypatch.setattr(reports, "HEARTBEAT", 0.05)
    guest, ours = (Channel(sock) for sock in socket.socketpair())
    with Link(reachable, pair[0]) as worker:
        assert not Watch(worker, ours).until_gone(time.monotonic() + 0.2)
    assert "alive" in words(rest(pair[1]))
    guest.close()
    ours.close()


def test_who_reads_late_misses_nothing(worker: Link, supervisor: Channel) -> None:
    for _ in range(3):
        worker.send(HUGE)
    worker.send(reports.Done())
    said: list[lines.Message] = []
    while not said or words(said)[-1] != "done":
        wait(worker, 0.0)
        said += supervisor.pending()
    assert [reports.number(message) for message in said] == [0, 1, 2, 3]
    assert [reports.decode(message)[0] for message in said] == [HUGE, HUGE, HUGE, reports.Done()]


def test_who_reads_wakes_the_worker_to_tell_more(worker: Link, supervisor: Channel) -> None:
    heard: list[lines.Message] = []
    reader = threading.Thread(target=lambda: heard.extend(hear(supervisor, "outcome")))
    worker.send(HUGE)
    reader.start()
    # far less than the time to the next sign of life, at which it would look anyway
    wait(worker, 1.0)
    assert words(heard) == ["outcome"]
    reader.join()


def test_a_sign_of_life_never_falls_into_a_line(
    monkeypatch: pytest.MonkeyPatch, pair: tuple[Channel, Channel], reachable: Path
) -> None:
    monkeypatch.setattr(reports, "HEARTBEAT", 0.05)
    with Link(reachable, pair[0]) as worker:
        worker.send(HUGE)
        wait(worker, 0.2)
        said: list[lines.Message] = []
        while words(said)[:1] != ["outcome"]:
            wait(worker, 0.0)
            said += pair[1].pending()
    assert reports.decode(said[0])[0] == HUGE


def test_who_does_not_read_costs_no_turn_of_the_loop(worker: Link) -> None:
    worker.send(HUGE)
    spent = time.process_time()
    wait(worker, 0.3)
    assert time.process_time() - spent < 0.1


def test_a_second_attach_begins_with_a_whole_line(worker: Link, connect: Callable[[], Channel]) -> None:
    worker.send(HUGE)
    first = connect()
    first.send(attach.encode(attach.FROM_THE_START))
    wait(worker, 0.0)
    second = connect()
    second.send(attach.encode(attach.FROM_THE_START))
    wait(worker, 0.0)
    worker.send(reports.Done())
    said: list[lines.Message] = []
    while not said or words(said)[-1] != "done":
        wait(worker, 0.0)
        said += second.pending()
    assert words(said) == ["outcome", "done"]


def test_who_knows_more_than_the_worker_said_hears_what_comes(worker: Link, connect: Callable[[], Channel]) -> None:
    worker.send(HUGE)
    channel = connect()
    channel.send(attach.encode(after=7))
    wait(worker, 0.0)
    worker.send(reports.Done())
    assert words(hear(channel, "done")) == ["done"]


def test_bytes_that_are_no_message_cost_their_sender_the_connection(
    worker: Link, supervisor: Channel, reachable: Path
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stranger:
        stranger.connect(str(reachable / attach.SOCKET))
        stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
        wait(worker, 0.0)
        assert stranger.recv(1) == b""
    worker.send(reports.Done())
    assert words(hear(supervisor, "done")) == ["done"]


def test_a_full_disk_silences_no_report_and_tears_no_line(
    worker: Link, supervisor: Channel, connect: Callable[[], Channel], reachable: Path
) -> None:
    path = reachable / attach.JOURNAL
    worker.send(reports.PhaseEntered(Phase.RUNNING))
    with full_disk(path.stat().st_size + 30):
        worker.send(reports.PhaseEntered(Phase.CLEANING))
        # half a line is there, and the reader takes it for torn
        assert not path.read_bytes().endswith(b"\n")
        assert words(journal.read(path)) == ["running"]
        worker.send(reports.PhaseEntered(Phase.DONE))
        assert words(hear(supervisor, "done")) == ["running", "cleaning", "done"]
        newer = connect()
        newer.send(attach.encode(attach.FROM_THE_START))
        wait(worker, 0.0)
        assert words(hear(newer, "done")) == ["running", "cleaning", "done"]
    worker.send(reports.Done())
    assert [message["n"] for message in journal.read(path)] == [0, 1, 2, 3]
    assert path.read_bytes().endswith(b"\n")


def test_last_words_that_neither_disk_nor_supervisor_took_wait_for_one_of_them(
    pair: tuple[Channel, Channel], connect: Callable[[], Channel], reachable: Path
) -> None:
    path = reachable / attach.JOURNAL
    supervisor, pipe = pair
    heard: list[str] = []

    def adopt() -> None:
        newer = connect()
        newer.send(attach.encode(attach.FROM_THE_START))
        heard.extend(words(hear(newer, "done")))
        newer.close()

    with full_disk(30), Link(reachable, pipe) as worker:
        supervisor.close()
        worker.send(reports.Done())
        adopter = threading.Thread(target=adopt)
        adopter.start()
    adopter.join()
    assert heard == ["done"]
    assert journal.read(path) == []


def test_last_words_come_to_the_disk_when_it_takes_them_again(pair: tuple[Channel, Channel], reachable: Path) -> None:
    supervisor, pipe = pair
    with Link(reachable, pipe) as worker:
        supervisor.close()
        with full_disk(30):
            worker.send(reports.Done())
            assert journal.read(reachable / attach.JOURNAL) == []
    assert words(journal.read(reachable / attach.JOURNAL)) == ["done"]


def test_a_worker_without_a_descriptor_for_a_supervisor_lets_it_wait_and_does_not_spin(
    monkeypatch: pytest.MonkeyPatch, pair: tuple[Channel, Channel], connect: Callable[[], Channel], reachable: Path
) -> None:
    monkeypatch.setattr(reports, "HEARTBEAT", 0.3)
    with Link(reachable, pair[0]) as worker:
        worker.send(reports.PhaseEntered(Phase.RUNNING))
        channel = connect()
        channel.send(attach.encode(attach.FROM_THE_START))
        silent, other = (Channel(sock) for sock in socket.socketpair())
        spent = time.process_time()
        with no_descriptor_left():
            assert Watch(worker, silent).next(time.monotonic() + 0.2) is None
        assert time.process_time() - spent < 0.1
        silent.close()
        other.close()
        wait(worker, 0.4)
        assert words(hear(channel, "running")) == ["running"]


def test_each_line_is_in_the_file_before_it_is_said(worker: Link, supervisor: Channel, reachable: Path) -> None:
    for phase in (Phase.PREPARING, Phase.BOOTING):
        worker.send(reports.PhaseEntered(phase))
        [said] = hear(supervisor, phase.value)
        assert (reachable / attach.JOURNAL).read_bytes().endswith(lines.encode(said))
