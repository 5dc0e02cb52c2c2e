"""What systemd hears, on a socket as it makes them."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from solstice.host.service import Notifier


@contextmanager
def manager(address: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind("\0" + address[1:] if address.startswith("@") else address)
        sock.settimeout(5)
        yield sock


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_every_word_arrives(tmp_path: Path, kind: str) -> None:
    address = str(tmp_path / "notify") if kind == "path" else f"@solstice-test-{os.getpid()}"
    with manager(address) as sock:
        notifier = Notifier({"NOTIFY_SOCKET": address})
        for say, heard in (
            (notifier.ready, b"READY=1"),
            (notifier.stopping, b"STOPPING=1"),
            (notifier.alive, b"WATCHDOG=1"),
        ):
            say()
            assert sock.recv(100) == heard
        notifier.reloading()
        first, second = sock.recv(100).split(b"\n")
        assert first == b"RELOADING=1"
        assert second.startswith(b"MONOTONIC_USEC=")


def test_a_status_is_said_when_it_is_another_one(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with manager(address) as sock:
        notifier = Notifier({"NOTIFY_SOCKET": address})
        for text in ("1/2 running", "1/2 running", "2/2 running"):
            notifier.status(text)
        assert [sock.recv(100) for _ in range(2)] == [b"STATUS=1/2 running", b"STATUS=2/2 running"]
        sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            sock.recv(100)


def test_without_a_manager_or_with_one_that_is_gone_nothing_happens(tmp_path: Path) -> None:
    Notifier({}).ready()
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "nobody")}).ready()


def test_a_manager_that_does_not_read_holds_nobody_up(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with manager(address):
        notifier = Notifier({"NOTIFY_SOCKET": address})
        for _ in range(10_000):
            notifier.alive()


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_the_watchdogs_interval_is_ours_or_none(environ: dict[str, str], seconds: float | None) -> None:
    assert Notifier({"NOTIFY_SOCKET": "/x", **environ}).watchdog == seconds
