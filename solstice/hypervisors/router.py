"""Picks the back end.

`choose` resolves `auto` from what the host is and has installed, without touching a hypervisor, so the supervisor may
call it; whether the chosen one answers is found out by the list at the start.  `open` connects, in a worker.
"""

from __future__ import annotations

import importlib.util
import sys

from solstice.errors import UsageError
from solstice.hypervisors.base import Hypervisor
from solstice.model import Backend
from solstice.protocol import order


def choose(wanted: Backend) -> Backend:
    """The back end for `wanted`; `auto` is never noop.  Raises `UsageError` with the remedy if there is none."""
    if wanted is Backend.AUTO:
        wanted = Backend.ZONES if sys.platform == "sunos5" else Backend.LIBVIRT
    if wanted is Backend.ZONES:
        raise UsageError(
            "the back end zones is not available",
            "this version of Solstice does not have it yet",
            "on a Linux host set SOLSTICE_BACKEND=libvirt",
        )
    if wanted is Backend.LIBVIRT and importlib.util.find_spec("libvirt") is None:
        raise UsageError(
            "no hypervisor on this host",
            "Python's libvirt module is not installed",
            "apt-get install python3-libvirt libvirt-daemon-system qemu-system-x86; "
            "or set SOLSTICE_BACKEND=noop to try Solstice without running anything",
        )
    return wanted


def open(settings: order.Hypervisor) -> Hypervisor:
    """Connect to the back end.  Raises `InfraError` if it does not answer."""
    if settings.backend is Backend.NOOP:
        from solstice.hypervisors.noop import Noop  # noqa: PLC0415 - a worker loads the one back end it uses

        return Noop(settings)
    from solstice.hypervisors.libvirt.hypervisor import Libvirt  # noqa: PLC0415

    return Libvirt(settings)
