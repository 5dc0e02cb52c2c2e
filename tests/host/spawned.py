"""A child for the test of `processes.spawn`: tells what it was born with, and ends when its channel does."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from solstice.host import processes
from solstice.host.channel import Channel, Closed


def main() -> None:
    inherited = sorted(int(entry.name) for entry in Path("/proc/self/fd").iterdir() if _is_open(int(entry.name)))
    channel = Channel(processes.adopt_stdin())
    processes.ignore_terminal_signals()
    channel.send(
        {
            "environment": dict(os.environ),
            "leads_its_session": os.getsid(0) == os.getpid(),
            "inherited": inherited,
            "stdin": sys.stdin.read(),
        }
    )
    try:
        while message := channel.receive():
            channel.send(message)
    except Closed:
        print("the channel is closed")


def _is_open(descriptor: int) -> bool:
    """False for the descriptor by which the folder was read."""
    return Path(f"/proc/self/fd/{descriptor}").exists()


if __name__ == "__main__":
    main()
