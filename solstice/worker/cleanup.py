"""Removing what is left: of one attempt whose worker died, or of everything this owner has at the hypervisor.

Both kill rather than ask: whose VM this was is dead already, and its disk is thrown away.
"""

from __future__ import annotations

from pathlib import Path

from setproctitle import setproctitle

from solstice.host import files
from solstice.host.places import vm_of
from solstice.hypervisors import router
from solstice.hypervisors.base import Hypervisor
from solstice.model import AttemptId
from solstice.protocol import order


def clean(what: order.Clean) -> None:
    """Remove every trace of one attempt's VM.  Raises `InfraError`; may be repeated."""
    setproctitle(f"solstice: cleaner {what.id.short}")
    hypervisor = router.open(what.hypervisor)
    _remove(hypervisor, what.id, what.directory)
    hypervisor.close()


def sweep(what: order.Sweep) -> tuple[str, ...]:
    """Remove every VM of the owner, and the throw-away directories of VMs that the hypervisor no longer knows.

    Gives the names of what was removed.  Raises `InfraError` if the hypervisor cannot be reached.
    """
    setproctitle("solstice: sweeper")
    hypervisor = router.open(what.hypervisor)
    owned = hypervisor.list_owned(what.owner)
    for id in owned:
        _remove(hypervisor, id, vm_of(what.jobs, id))
    # After the removing, which needs no network: a host without one is told so before it takes jobs.
    hypervisor.ensure_network()
    hypervisor.close()
    # A worker that was killed between making its directory and defining its domain leaves the directory alone.
    stray = sorted({*what.jobs.glob("*/*/vm"), *what.jobs.glob("*/0")})
    for directory in stray:
        files.remove_tree(directory)
    return tuple([id.name for id in owned] + [str(path) for path in stray])


def _remove(hypervisor: Hypervisor, id: AttemptId, directory: Path) -> None:
    hypervisor.destroy(id)
    hypervisor.remove(id, directory)
