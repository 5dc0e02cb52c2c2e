"""The fork server: a small program that forks workers for the supervisor, and tells it how they ended.

`python -m solstice.worker.forkserver`, with a SOCK_SEQPACKET socket as standard input.  One request a packet:
`{"token": N}` with one descriptor, the worker's channel.  Answers: `{"token": N, "pid": P}` with a pidfd, and later
`{"token": N, "status": S}`, S as `os.waitstatus_to_exitcode` has it.  It ends at EOF, without touching the workers.

Why our own: multiprocessing's start() blocks its caller for as long as the server does, its children inherit the
whole environment and import the caller's main module, and exit statuses are lost when it dies.  Here a server that is
stopped or slow costs the supervisor nothing, and a worker costs a fork: everything heavy is imported before.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import socket
import warnings

from setproctitle import setproctitle

from solstice.host import processes, racepoints
from solstice.worker import main as worker

_MAX_REQUEST = 4096


class ForkServer:
    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._tokens: dict[int, int] = {}

    def run(self) -> None:
        """Serve until the supervisor closes its end."""
        reaper, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        while True:
            ready, _, _ = select.select([self._sock.fileno(), reaper], [], [])
            if reaper in ready:
                os.read(reaper, 4096)
                self._reap()
            if self._sock.fileno() in ready and not self._serve():
                return

    def _serve(self) -> bool:
        try:
            data, descriptors, _flags, _address = socket.recv_fds(self._sock, _MAX_REQUEST, 1)
        except ConnectionResetError:
            return False  # the supervisor was killed with something of ours unread
        if not data:
            return False
        token = json.loads(data)["token"]
        if not descriptors:
            self._refuse(token)  # no descriptor was to be had for it
            return True
        channel = socket.socket(fileno=descriptors[0])
        racepoints.reach("forkserver.fork.before")
        try:
            pid = os.fork()
        except OSError:
            channel.close()
            self._refuse(token)
            return True
        if pid == 0:
            _become_worker(channel)
        channel.close()
        racepoints.reach("forkserver.fork.after")
        self._tokens[pid] = token
        pidfd = os.pidfd_open(pid)
        self._answer({"token": token, "pid": pid}, [pidfd])
        os.close(pidfd)
        racepoints.reach("forkserver.fork.answered")
        return True

    def _refuse(self, token: int) -> None:
        """This worker cannot be; the next one may."""
        self._answer({"token": token, "status": os.EX_OSERR}, [])

    def _reap(self) -> None:
        while self._tokens:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            token = self._tokens.pop(pid)
            self._answer({"token": token, "status": os.waitstatus_to_exitcode(status)}, [])

    def _answer(self, message: dict[str, int], descriptors: list[int]) -> None:
        try:
            socket.send_fds(self._sock, [json.dumps(message).encode()], descriptors)
        except (BrokenPipeError, ConnectionResetError):
            # The supervisor is gone: the next turn of the loop reads EOF and ends.
            return


def _become_worker(channel: socket.socket) -> None:
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    processes.close_all_but(channel.fileno())
    os._exit(worker.main(channel))


def main() -> None:
    setproctitle("solstice: forkserver")
    processes.ignore_terminal_signals()
    # Python 3.12 and later count threads by a field of /proc/self/stat, which the blank in our title shifts: a niced
    # fork server would be told that it has as many threads as its nice value.  It has one.
    warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
    sock = processes.adopt_stdin()
    worker.preload()
    # What is imported by now lives as long as we do: frozen, no collection in a worker ever copies its pages.
    gc.collect()
    gc.freeze()
    ForkServer(sock).run()


if __name__ == "__main__":
    main()
