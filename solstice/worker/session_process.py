"""Starts the session's process: the worker's child that alone touches what a guest sends.

The worker makes the sockets and opens the logs, forks, and keeps only the channel.  The child has nothing else open,
so whatever a guest does to it, it finds no hypervisor there.  It ends when the worker closes the channel.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from setproctitle import setproctitle

from solstice.host import processes
from solstice.host.channel import Channel
from solstice.model import VmSpec
from solstice.runner.joblog import CONSOLE_LIMIT, LOG_LIMIT, JobLog
from solstice.runner.session import Session

_END_TIMEOUT = 5.0


@dataclass
class SessionProcess:
    """The worker's end."""

    channel: Channel
    pid: int

    def end(self) -> None:
        """Let the session finish its logs and end; kill it if it has not within `_END_TIMEOUT` seconds."""
        self.channel.close()
        pidfd = os.pidfd_open(self.pid)
        try:
            if not select.select([pidfd], [], [], _END_TIMEOUT)[0]:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        finally:
            os.close(pidfd)
        os.waitpid(self.pid, 0)


def start(vm: VmSpec, record: Path) -> SessionProcess:
    """Make the sockets that the VM will connect to and the logs in `record`, and fork the session."""
    port, console = _listen(vm.runner_socket), _listen(vm.console_socket)
    logs = [_open_log(record / "log"), _open_log(record / "console.log")]
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        _child(vm, theirs, port, console, logs)
    for descriptor in logs:
        os.close(descriptor)
    for sock in (theirs, port, console):
        sock.close()
    return SessionProcess(Channel(ours), pid)


def _child(
    vm: VmSpec, channel: socket.socket, port: socket.socket, console: socket.socket, logs: Iterable[int]
) -> NoReturn:
    status = 1
    try:
        setproctitle(f"solstice: session {vm.id.short}")
        processes.close_all_but(channel.fileno(), port.fileno(), console.fileno(), *logs)
        log, console_log = logs
        Session(Channel(channel), port, console, JobLog(log, LOG_LIMIT), JobLog(console_log, CONSOLE_LIMIT)).run()
        status = 0
    except BaseException:  # noqa: BLE001 - the last frame of a forked child: nothing may run past it
        traceback.print_exc(file=sys.stderr)
    finally:
        os._exit(status)


def _listen(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.bind(str(path))
    # QEMU is another user, and connecting needs write permission; who it really is the session checks at accept.
    path.chmod(0o666)
    sock.listen(2)
    return sock


def _open_log(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
