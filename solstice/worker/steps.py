"""The steps that more than one kind of worker takes on the way to a running VM.  Each may be repeated."""

from __future__ import annotations

import errno
from pathlib import Path

from solstice.errors import Cause, InfraError
from solstice.host import files, racepoints
from solstice.hypervisors.base import Hypervisor
from solstice.model import AttemptId, VmSpec
from solstice.runner import script
from solstice.seed import documents, iso

# A file system that knows no locks: there the overlay alone says that the image is in use.
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)


def make_directories(vm: VmSpec, record: Path) -> None:
    """The record's directory and the VM's in it; 0711, because QEMU's user must pass through."""
    for directory in (record, vm.directory):
        files.make_passable(directory)


def prepare(hypervisor: Hypervisor, vm: VmSpec) -> None:
    """Seed, overlay and definition.  Raises `InfraError`."""
    if hypervisor.carries_guest:
        _pin(vm.base)
    if vm.nocloud:
        iso.write(documents.nocloud(vm.id, script.script()), vm.seed)
    hypervisor.prepare(vm)


def _pin(base: Path) -> None:
    """Keep the base image from being pruned until this process ends: from before there is an overlay that names it."""
    try:
        files.pin(base)
    except FileNotFoundError:
        raise InfraError(Cause.IMAGE, f"{base} is not there any more") from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise InfraError(Cause.IMAGE, f"{base}: {error.strerror}") from None


def destroy_and_remove(hypervisor: Hypervisor, id: AttemptId, directory: Path, who: str) -> None:
    """End the VM now and take all of it away.  Raises `InfraError`; `who` does it, as the race points call it."""
    racepoints.reach(f"{who}.destroy.before")
    hypervisor.destroy(id)
    racepoints.reach(f"{who}.destroy.after")
    racepoints.reach(f"{who}.remove.before")
    hypervisor.remove(id, directory)
    racepoints.reach(f"{who}.remove.after")


def remove_directory(vm: VmSpec) -> None:
    """Remove the VM's directory, if the hypervisor has not done so already."""
    files.remove_tree(vm.directory)
