"""`solstice top` and `solstice drain --wait`: commands that last, in a pipe and on a real terminal."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import termios
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from tests.cli.supervisors import ROOT, STATUS, Supervisor, arguments, solstice

Answering = Callable[..., Supervisor]
ENTER, LEAVE = b"\x1b[?1049h", b"\x1b[?1049l"
ROWS = 12


@pytest.fixture
def supervisor(answering: Answering) -> Supervisor:
    return answering(status=lambda _asked: STATUS)


def test_a_number_of_looks_is_printed_one_after_the_other(supervisor: Supervisor) -> None:
    done = solstice(supervisor.run_dir, "top", "--iterations", "2", "--interval", "0.1")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("metal-1: solstice 0.1.0") == 2
    assert "\n\n20" in done.stdout
    assert "\x1b" not in done.stdout


def test_json_is_one_object_a_line(supervisor: Supervisor) -> None:
    done = solstice(supervisor.run_dir, "top", "--iterations", "2", "--interval", "0.1", "--json")
    assert [json.loads(line) for line in done.stdout.splitlines()] == [STATUS, STATUS]


def test_an_interval_that_would_be_a_load_is_refused(tmp_path: Path) -> None:
    done = solstice(tmp_path, "top", "--interval", "0")
    assert done.returncode == 2
    assert "--interval" in done.stderr


def test_in_a_pipe_ctrl_c_ends_it_with_0(supervisor: Supervisor) -> None:
    command = arguments(supervisor.run_dir, "top", "--json", "--interval", "60")
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as top:
        assert top.stdout is not None
        assert json.loads(top.stdout.readline()) == STATUS
        top.send_signal(signal.SIGINT)
        _out, said = top.communicate(timeout=30)
    assert (top.returncode, said) == (0, "")


def test_a_reader_that_leaves_ends_it_quietly(supervisor: Supervisor) -> None:
    command = arguments(supervisor.run_dir, "top", "--json", "--interval", "0.1")
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as top:
        assert top.stdout is not None
        assert top.stderr is not None
        top.stdout.readline()
        top.stdout.close()
        assert top.wait(30) == 0
        assert top.stderr.read() == b""


class Terminal:
    """A command on a terminal of `ROWS` lines, and what it wrote there."""

    def __init__(self, command: list[str], **environment: str) -> None:
        self._main, side = pty.openpty()
        fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, 60, 0, 0))
        env = {"PATH": os.environ["PATH"], "TERM": "xterm", **environment}
        self.process = subprocess.Popen(command, cwd=ROOT, env=env, stdin=side, stdout=side, stderr=side)
        os.close(side)
        self.text = b""

    def until(self, wanted: bytes, times: int = 1) -> None:
        """Read on until `wanted` has come so many times."""
        while self.text.count(wanted) < times:
            self.text += os.read(self._main, 1 << 16)

    def rest(self) -> bytes:
        """All that was written until the end; Linux says EIO where another would say end of file."""
        try:
            while data := os.read(self._main, 1 << 16):
                self.text += data
        except OSError:
            pass
        return self.text

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(30)
        os.close(self._main)


@pytest.fixture
def terminal() -> Iterator[Callable[..., Terminal]]:
    made: list[Terminal] = []

    def make(command: list[str], **environment: str) -> Terminal:
        made.append(Terminal(command, **environment))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
def test_on_a_terminal_it_redraws_an_alternate_screen_and_leaves_it(
    supervisor: Supervisor, terminal: Callable[..., Terminal], number: signal.Signals, status: int
) -> None:
    top = terminal(arguments(supervisor.run_dir, "top", "--interval", "0.1"))
    top.until(b"\x1b[J", times=3)
    top.process.send_signal(number)
    text = top.rest()
    assert top.process.wait(30) == status
    assert (text.count(ENTER), text.count(LEAVE)) == (1, 1)
    assert text.index(ENTER) < text.index(b"metal-1") < text.index(LEAVE)
    assert text.endswith(LEAVE)
    first = text.split(b"\x1b[H")[1]
    assert first.count(b"\n") < ROWS
    assert b"\x1b[32mup\x1b[0m" in first


def test_a_supervisor_that_ends_is_said_on_the_screen_that_stays(
    supervisor: Supervisor, terminal: Callable[..., Terminal]
) -> None:
    top = terminal(arguments(supervisor.run_dir, "top", "--interval", "0.1"))
    top.until(b"\x1b[J")
    (supervisor.run_dir / "control.sock").unlink()
    text = top.rest()
    assert top.process.wait(30) == 2
    assert b"no supervisor answers" in text.split(LEAVE)[1]


def test_no_color_holds_on_a_terminal_too(supervisor: Supervisor, terminal: Callable[..., Terminal]) -> None:
    for environment, coloured in (({}, True), ({"NO_COLOR": "1"}, False)):
        status = terminal(arguments(supervisor.run_dir, "status"), **environment)
        text = status.rest()
        assert (b"\x1b[" in text) is coloured
        assert "PENDING_LIMIT" in click.unstyle(text.decode())


def test_who_no_longer_waits_for_a_drain_is_told_that_it_goes_on(answering: Answering) -> None:
    answer, asked = threading.Event(), threading.Event()

    def drain(_asked: Any) -> Any:
        asked.set()
        answer.wait(30)
        return {"active": 0, "pending": 0}

    supervisor = answering(drain=drain)
    command = arguments(supervisor.run_dir, "drain", "--wait")
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as waiting:
        assert asked.wait(30)
        waiting.send_signal(signal.SIGINT)
        out, said = waiting.communicate(timeout=30)
    answer.set()
    assert (waiting.returncode, out) == (130, "")
    assert "`solstice resume` undoes it" in said
