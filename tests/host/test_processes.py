from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from solstice.errors import Cause, DeadlineExpired, InfraError
from solstice.host import processes
from solstice.host.channel import Channel
from solstice.protocol.lines import Message

PYTHON = {"PYTHONPATH", "PYTHONSAFEPATH"}


def test_what_a_program_prints_is_given_back() -> None:
    assert processes.run(["printf", "%s", "a b"], timeout=10).stdout == b"a b"


@pytest.mark.skipif(sys.platform != "linux", reason="util-linux has the program that sets the limit")
def test_a_program_has_no_more_memory_than_it_may() -> None:
    argv = [sys.executable, "-c", "import mmap; print(len(mmap.mmap(-1, 1 << 30)))"]
    assert processes.run(argv, timeout=10).stdout == b"1073741824\n"
    with pytest.raises(InfraError, match="Cannot allocate memory"):
        processes.run(argv, timeout=10, memory=512 << 20)


class Enough(Exception):
    pass


def test_a_program_that_is_watched_comes_to_its_end_with_all_that_it_printed() -> None:
    looks: list[None] = []
    done = processes.run(
        ["sh", "-c", "printf one; sleep 0.5; printf two"], timeout=10, watch=lambda: looks.append(None)
    )
    assert done.stdout == b"onetwo"
    assert looks


def test_a_program_is_killed_by_what_its_watcher_raises(tmp_path: Path) -> None:
    pid = tmp_path / "pid"

    def watch() -> None:
        if pid.exists():
            raise Enough

    with pytest.raises(Enough):
        processes.run(["sh", "-c", f"echo $$ >{pid}.new; mv {pid}.new {pid}; exec sleep 60"], timeout=30, watch=watch)
    assert not psutil.pid_exists(int(pid.read_text()))


def test_a_watched_program_has_its_deadline_too() -> None:
    with pytest.raises(DeadlineExpired):
        processes.run(["sleep", "60"], timeout=0.5, watch=lambda: None)


def test_no_shell_reads_the_words() -> None:
    assert processes.run(["printf", "%s", "$HOME; exit 3"], timeout=10).stdout == b"$HOME; exit 3"


def test_a_program_sees_nothing_of_our_environment_and_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMQP_URL", "amqp://ci:s3cret@localhost")
    printed = processes.run(["sh", "-c", "env; cat"], timeout=10).stdout
    assert b"s3cret" not in printed
    names = {line.partition(b"=")[0] for line in printed.splitlines()}
    assert names - {b"PWD", b"SHLVL", b"_"} == {b"LANG", b"PATH", b"HOME"}


def test_another_status_than_0_is_a_failure_with_a_line_to_paste_and_the_last_words() -> None:
    with pytest.raises(InfraError, match="exit status 3: sh -c 'echo why >&2; exit 3': why") as failure:
        processes.run(["sh", "-c", "echo why >&2; exit 3"], timeout=10, cause=Cause.IMAGE)
    assert failure.value.cause is Cause.IMAGE


def test_of_endless_last_words_the_end_is_kept() -> None:
    with pytest.raises(InfraError) as failure:
        processes.run(["sh", "-c", "yes | head -c 100000 >&2; echo end >&2; exit 1"], timeout=10)
    assert str(failure.value.why).endswith("end")
    assert len(failure.value.why) < 3000


def test_a_program_ended_by_a_signal_is_a_failure_that_names_it() -> None:
    with pytest.raises(InfraError, match="killed by SIGKILL"):
        processes.run(["sh", "-c", "kill -KILL $$"], timeout=10)


def test_a_program_that_is_not_there_is_a_failure_that_says_so() -> None:
    with pytest.raises(InfraError, match="cannot start /no/such/program: No such file") as failure:
        processes.run(["/no/such/program"], timeout=10)
    assert failure.value.cause is Cause.HYPERVISOR


def test_a_program_that_does_not_end_is_killed_at_its_deadline(tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(DeadlineExpired, match="no end after 0 s: sh -c"):
        processes.run(["sh", "-c", f"echo $$ >{tmp_path}/pid; exec sleep 60"], timeout=0.4)
    assert time.monotonic() - started < 10
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))


@dataclass(frozen=True)
class Spawned:
    process: subprocess.Popen[bytes]
    channel: Channel
    log: Path
    born_with: Message


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Spawned]:
    """A child that has said what it was born with; it ends with its channel."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://ci:s3cret@localhost/ci")
    log = tmp_path / "log"
    ours, theirs = socket.socketpair()
    with theirs, log.open("wb") as output:
        process = processes.spawn("tests.host.spawned", theirs, output.fileno())
    channel = Channel(ours)
    said = channel.receive(time.monotonic() + 30)
    assert said is not None, log.read_text()
    yield Spawned(process, channel, log, said)
    channel.close()
    process.wait(30)


def test_a_child_inherits_neither_environment_nor_descriptors(child: Spawned) -> None:
    assert "s3cret" not in str(child.born_with)
    assert child.born_with["environment"].keys() - {"LC_CTYPE"} == {"HOME", "LANG", "PATH", *PYTHON}
    assert child.born_with["inherited"] == [0, 1, 2]


def test_a_child_has_a_session_of_its_own_and_nothing_to_read_but_its_channel(child: Spawned) -> None:
    assert child.born_with["leads_its_session"]
    assert child.born_with["stdin"] == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_child_goes_on_after_the_signals_of_a_terminal(child: Spawned, number: signal.Signals) -> None:
    child.process.send_signal(number)
    child.channel.send({"still": "there"})
    assert child.channel.receive(time.monotonic() + 30) == {"still": "there"}


def test_a_child_ends_when_its_channel_does_and_its_words_go_to_the_log(child: Spawned) -> None:
    child.channel.close()
    assert child.process.wait(30) == 0
    assert child.log.read_text() == "the channel is closed\n"


def test_close_all_but_keeps_what_it_is_told_and_the_first_three() -> None:
    pairs = [os.pipe() for _ in range(3)]
    ours = [descriptor for pair in pairs for descriptor in pair]
    keep = ours[1], ours[4]
    pid = os.fork()
    if pid == 0:
        processes.close_all_but(*keep)
        os._exit(_open_below(ours[-1] + 1) != {0, 1, 2, *keep})
    for descriptor in ours:
        os.close(descriptor)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def _open_below(limit: int) -> set[int]:
    found = set()
    for descriptor in range(limit):
        with suppress(OSError):
            os.fstat(descriptor)
            found.add(descriptor)
    return found
