"""The one door for running programs: argv lists, a fresh environment, stdin closed, a deadline on every wait.

`run` is for the children that may block (worker, images); the supervisor starts its few long-lived children with
`spawn` and never waits in it.  No shell string exists anywhere in Solstice.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from solstice.errors import Cause, DeadlineExpired, InfraError
from solstice.host import racepoints

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_TAIL = 2000
_WATCH_EVERY = 0.2
# close_range(2) does not care how many of them exist.
_MAX_DESCRIPTOR = 1 << 30


def fresh_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of every child: nothing is inherited, so no credential is."""
    return {"LANG": "C.UTF-8", "PATH": SYSTEM_PATH, "HOME": "/", **(extra or {})}


@dataclass(frozen=True, slots=True)
class Finished:
    """A program that ended with status 0."""

    stdout: bytes


def run(
    argv: Sequence[str | os.PathLike[str]],
    *,
    timeout: float,
    cause: Cause = Cause.HYPERVISOR,
    memory: int | None = None,
    watch: Callable[[], None] | None = None,
) -> Finished:
    """Run one program to its end; at most `timeout` seconds, and with `memory` bytes of address space at most.

    `watch` is called again and again meanwhile; the program is killed by what it raises.

    Raises `InfraError(cause)` if it cannot start or ends with another status than 0, `DeadlineExpired` if it is
    killed for its time.  The message has the command line in a form that can be pasted into a shell.
    """
    words = [*_limited(memory), *(os.fspath(word) for word in argv)]
    printable = shlex.join(words)
    try:
        done = _run(words, time.monotonic() + timeout, watch)
    except subprocess.TimeoutExpired:
        raise DeadlineExpired(cause, f"no end after {timeout:.0f} s: {printable}") from None
    except OSError as error:
        raise InfraError(cause, f"cannot start {printable}: {error.strerror}") from None
    if done.returncode != 0:
        said = done.stderr[-_TAIL:].decode(errors="replace").strip()
        raise InfraError(cause, f"{_ending(done.returncode)}: {printable}: {said}")
    return Finished(done.stdout)


def _run(words: list[str], deadline: float, watch: Callable[[], None] | None) -> subprocess.CompletedProcess[bytes]:
    """As `subprocess.run` does it, with a look around.  Raises `TimeoutExpired`, and what `watch` raises."""
    null, pipe = subprocess.DEVNULL, subprocess.PIPE
    with subprocess.Popen(words, stdin=null, stdout=pipe, stderr=pipe, env=fresh_environment()) as process:
        try:
            while True:
                left = max(0.0, deadline - time.monotonic())
                try:
                    out, err = process.communicate(timeout=min(left, _WATCH_EVERY) if watch else left)
                    return subprocess.CompletedProcess(words, process.returncode, out, err)
                except subprocess.TimeoutExpired:
                    if watch is None or time.monotonic() >= deadline:
                        raise
                    watch()
        except BaseException:
            process.kill()
            raise


def _limited(memory: int | None) -> list[str]:
    """util-linux's prlimit, because a limit that is set between fork and exec needs Python code there, which may hang.

    illumos has no such program: there a limit is the service manager's.
    """
    return [] if memory is None or sys.platform != "linux" else ["prlimit", f"--as={memory}", "--"]


def _ending(status: int) -> str:
    if status < 0:
        return f"killed by {signal.Signals(-status).name}"
    return f"exit status {status}"


def spawn(
    module: str, sock: socket.socket, log: int = 2, environment: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start `python -m module` with `sock` as its standard input, which is its channel in both directions.

    The child has a session of its own (Ctrl-C reaches the supervisor alone), a fresh environment to which
    `environment` is added, and nothing open but the channel and `log`, a descriptor that takes its standard output
    and error.
    """
    package_root = Path(__file__).resolve().parents[2]
    ours = {
        "PYTHONPATH": os.fspath(package_root),
        "PYTHONSAFEPATH": "1",
        **racepoints.environment(),
        **(environment or {}),
    }
    return subprocess.Popen(
        [sys.executable, "-m", module],
        stdin=sock.fileno(),
        stdout=log,
        stderr=log,
        env=fresh_environment({**ours, **(environment or {})}),
        start_new_session=True,
    )


def reap(process: subprocess.Popen[bytes]) -> None:
    """Fetch the status of a child that has ended; one that is killed and that the kernel holds is not waited for."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(0)


def adopt_stdin() -> socket.socket:
    """The channel that `spawn` gave this child, moved off descriptor 0 so that no library reads from it."""
    sock = socket.socket(fileno=os.dup(0))
    with Path(os.devnull).open("rb") as null:
        os.dup2(null.fileno(), 0)
    return sock


def close_all_but(*keep: int) -> None:
    """Close every descriptor from 3 up that is not in `keep`: what a forked child must not have of its parent's."""
    edges = [2, *sorted(descriptor for descriptor in keep if descriptor > 2), _MAX_DESCRIPTOR]
    for low, high in itertools.pairwise(edges):
        os.closerange(low + 1, high)


def ignore_terminal_signals() -> None:
    """Ctrl-C and a closed terminal are the supervisor's business; a child ends when its stream does."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
