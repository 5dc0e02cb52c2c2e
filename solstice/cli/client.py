"""A client of the control socket: asks one thing, waits for the answer, five seconds at most if not told otherwise."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path
from typing import Any

from solstice.errors import SolsticeError, UsageError
from solstice.host import clock
from solstice.host.channel import Channel, Closed
from solstice.supervisor.control import VERSION

TIMEOUT = 5.0
SOCKET = "control.sock"


class Refused(SolsticeError):
    """The supervisor answered that it cannot do what was asked: exit code 1, where the absence of one is 2."""


def ask(run_dir: Path, command: str, *, patience: float | None = TIMEOUT, **fields: Any) -> Any:
    """The supervisor's answer, for which we wait `patience` seconds; None: as long as the supervisor is there.

    Raises `UsageError` if there is no supervisor or it is late, `Refused` if it refuses.
    """
    path = run_dir / SOCKET
    with contextlib.ExitStack() as stack:
        sock = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        try:
            # Of a supervisor that hangs: once its backlog is full, a blocking connect waits for ever.
            sock.settimeout(TIMEOUT)
            sock.connect(str(path))
            channel = Channel(sock)
            channel.send({"v": VERSION, "cmd": command, **fields})
            answer = channel.receive(None if patience is None else clock.deadline(patience))
        except (OSError, Closed) as error:
            raise _nobody(path, getattr(error, "strerror", None) or "it closed the connection") from None
    if answer is None:
        raise UsageError(
            "the supervisor does not answer in time",
            f"{path}: no answer within {patience:g} s",
            "its database may hang: see `solstice status` and its log",
        )
    if not answer["ok"]:
        raise Refused(f"the supervisor refused {command}", str(answer["error"]))
    return answer["result"]


def _nobody(path: Path, why: str) -> UsageError:
    return UsageError(
        "no supervisor answers", f"{path}: {why}", "start `solstice serve`, or name its run directory by --run-dir"
    )
