"""The throw-away disk: a qcow2 overlay on the base image, by `qemu-img`, with every format named.

A format that is not named would be probed, and a guest that wrote a qcow2 header on a raw disk could then name any
file of the host as its backing file (CVE-2024-32498).
"""

from __future__ import annotations

from solstice.errors import Cause, InfraError
from solstice.host import processes
from solstice.model import VmSpec

_CREATE_TIMEOUT = 30.0
_MEMORY = 1 << 30
_NO_SPACE = "No space left on device"


def make_overlay(vm: VmSpec) -> None:
    """Make `vm.overlay`, anew if it is there.  Raises `InfraError`: `infra.image`, or `infra.disk_full`."""
    argv = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", vm.base_format.value, "-b", str(vm.base), str(vm.overlay)]
    if vm.resources.disk_gib:
        argv.append(f"{vm.resources.disk_gib}G")
    try:
        processes.run(argv, timeout=_CREATE_TIMEOUT, cause=Cause.IMAGE, memory=_MEMORY)
    except InfraError as error:
        if _NO_SPACE in error.why:
            raise InfraError(Cause.DISK_FULL, error.why) from None
        raise
