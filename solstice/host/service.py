"""The service manager, as systemd speaks: sd_notify(3) over the socket that NOTIFY_SOCKET names.

Without that variable every call does nothing; illumos's SMF needs none of it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping


class Notifier:
    """`watchdog` is how often systemd wants to hear of us, in seconds; None if it does not."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        self._said = ""
        usec, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
        is_ours = usec.isdecimal() and int(usec) > 0 and pid in ("", str(os.getpid()))
        self.watchdog = int(usec) / 1e6 if self._address and is_ours else None

    def ready(self) -> None:
        """The service is up, or has read its configuration again."""
        self._send("READY=1")

    def reloading(self) -> None:
        """The configuration is being read again; `ready` follows."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def alive(self) -> None:
        """To be said within every `watchdog` seconds."""
        self._send("WATCHDOG=1")

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        if text != self._said:
            self._said = text
            self._send(f"STATUS={text}")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        # An abstract name is written with @ in the variable, and with NUL in the address.
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        # A manager that is gone or does not read is no reason to fail.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.sendto(message.encode(), address)
