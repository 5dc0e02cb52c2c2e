"""The rate at which our fork server starts and reaps processes that do nothing: what no host can do better than.

The fork server is spoken to directly.  A worker whose channel is closed before it has an order ends with status 0.
"""

from __future__ import annotations

import json
import os
import socket
import time

from solstice.host import processes

_MAX_ANSWER = 4096


def rate(count: int, concurrency: int) -> float:
    """Processes per second, over `count` of them, at most `concurrency` at a time."""
    sock, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    server = processes.spawn("solstice.worker.forkserver", theirs)
    theirs.close()
    with sock:
        _run(sock, concurrency, concurrency)  # it has imported everything when it answers
        began = time.monotonic()
        _run(sock, count, concurrency)
        seconds = time.monotonic() - began
    assert server.wait(10) == 0
    return count / seconds


def _run(sock: socket.socket, count: int, concurrency: int) -> None:
    asked = 0
    for ended in range(count):
        while asked < min(count, ended + concurrency):
            _ask(sock, asked)
            asked += 1
        assert _next_status(sock) == 0


def _ask(sock: socket.socket, token: int) -> None:
    ours, theirs = socket.socketpair()
    ours.close()
    socket.send_fds(sock, [json.dumps({"token": token}).encode()], [theirs.fileno()])
    theirs.close()


def _next_status(sock: socket.socket) -> int:
    while True:
        data, descriptors, _flags, _address = socket.recv_fds(sock, _MAX_ANSWER, 1)
        for descriptor in descriptors:
            os.close(descriptor)
        answer: dict[str, int] = json.loads(data)
        if "status" in answer:
            return answer["status"]
