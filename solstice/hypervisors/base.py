"""The contract that every back end keeps.

All calls block, and are made by a worker, the process that may be killed for taking too long.  Every call may be
repeated: it looks before it acts, so that a clean-up worker can go over what a dead worker left half done.  What goes
wrong is an `InfraError` with the cause the attempt ends with.

    ensure_network    let the network that guests are attached to be up, now and after a reboot of the host
    prepare           make the throw-away disk and the definition; nothing runs yet
    start             let it run; the VM connects to the sockets that the caller already listens on
    is_running        does the hypervisor say that it runs?  False for a VM it does not know
    request_shutdown  ask the guest, by ACPI, to power off; returns at once; a VM that is gone is fine
    destroy           end it now; a VM that is gone is fine
    remove            delete the definition and every file of the VM; only once it does not run
    list_owned        every VM that carries this owner's id, running or not, whatever made it
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from solstice.model import AttemptId, VmSpec


class Hypervisor(Protocol):
    carries_guest: bool
    """False if nothing executes inside, so that no runner will ever report."""

    def peers(self) -> frozenset[int]:
        """The user ids under which a VM may connect to our sockets."""
        ...

    def version(self) -> int:
        """The emulator's version, as one number."""
        ...

    def ensure_network(self) -> None: ...

    def prepare(self, vm: VmSpec) -> None: ...

    def start(self, id: AttemptId) -> None: ...

    def is_running(self, id: AttemptId) -> bool: ...

    def request_shutdown(self, id: AttemptId) -> None: ...

    def destroy(self, id: AttemptId) -> None: ...

    def remove(self, id: AttemptId, directory: Path) -> None: ...

    def list_owned(self, owner: str) -> list[AttemptId]: ...

    def close(self) -> None: ...
