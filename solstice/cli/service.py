"""Runs a supervisor in this process: what `serve` and `run` share."""

from __future__ import annotations

import asyncio
import signal

from solstice.supervisor.core import Supervisor


def obey_signals(supervisor: Supervisor, *, is_service: bool) -> None:
    """SIGTERM and SIGINT stop it, a second one hurries it.

    A service drains at SIGQUIT, reads its configuration again at SIGHUP, and hands over to its successor at SIGUSR1;
    anything else stops at them too.
    """
    came: list[signal.Signals] = []

    def stop(number: signal.Signals) -> None:
        came.append(number)
        if len(came) == 1:
            supervisor.stop()
        else:
            supervisor.hurry()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1):
        loop.add_signal_handler(number, stop, number)
    if is_service:
        loop.add_signal_handler(signal.SIGQUIT, supervisor.drain)
        loop.add_signal_handler(signal.SIGHUP, supervisor.reload)
        loop.add_signal_handler(signal.SIGUSR1, supervisor.hand_over)
