"""The control socket's client against real sockets that misbehave."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from solstice.cli import client
from solstice.errors import UsageError
from solstice.protocol.lines import Lines, Message, encode


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[socket.socket]:
    """A socket where a supervisor's would be, with room for one client that waits."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / client.SOCKET))
        sock.listen(0)
        yield sock


def answering(listening: socket.socket, answer: bytes) -> list[Message]:
    """Answer one client in a thread; the list gets what it asked."""
    asked: list[Message] = []

    def serve() -> None:
        connection, _ = listening.accept()
        with connection:
            asked.extend(Lines().feed(connection.recv(1 << 16)))
            connection.sendall(answer)

    threading.Thread(target=serve, daemon=True).start()
    return asked


def test_the_result_is_what_was_answered(listening: socket.socket, tmp_path: Path) -> None:
    asked = answering(listening, encode({"v": 1, "ok": True, "result": [1, 2]}))
    assert client.ask(tmp_path, "jobs", limit=3) == [1, 2]
    assert asked == [{"v": 1, "cmd": "jobs", "limit": 3}]


def test_a_refusal_is_not_the_absence_of_a_supervisor(listening: socket.socket, tmp_path: Path) -> None:
    answering(listening, encode({"v": 1, "ok": False, "error": "no such job"}))
    with pytest.raises(client.Refused, match="no such job"):
        client.ask(tmp_path, "job", job="x")


def test_a_connection_that_is_closed_without_an_answer_is_reported(listening: socket.socket, tmp_path: Path) -> None:
    answering(listening, b"")
    with pytest.raises(UsageError, match="it closed the connection"):
        client.ask(tmp_path, "status")


def test_a_supervisor_that_hangs_with_a_full_backlog_is_reported(listening: socket.socket, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as first:
        first.connect(str(tmp_path / client.SOCKET))
        with pytest.raises(UsageError, match="no supervisor answers"):
            client.ask(tmp_path, "status")


def test_an_answer_that_does_not_come_is_waited_for_no_longer_than_wanted(
    listening: socket.socket, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"no answer within 0\.1 s"):
        client.ask(tmp_path, "status", patience=0.1)
