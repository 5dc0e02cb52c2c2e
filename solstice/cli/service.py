"""Runs a supervisor in this process: what `serve` and `run` share."""

from __future__ import annotations

import asyncio
import signal

from solstice.supervisor.core import Supervisor


def obey_signals(supervisor: Supervisor) -> list[signal.Signals]:
    """SIGTERM, SIGINT and a closed terminal stop it, a second one hurries it; the list has those that came."""
    came: list[signal.Signals] = []

    def on_signal(number: signal.Signals) -> None:
        came.append(number)
        if len(came) == 1:
            supervisor.stop()
        else:
            supervisor.hurry()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, on_signal, number)
    return came
