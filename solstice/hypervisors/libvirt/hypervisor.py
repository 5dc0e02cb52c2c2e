"""The contract of `hypervisors.base`, kept on libvirt.

One connection, opened by the worker that owns it, never carried over a fork.  libvirt's own error texts go into the
`InfraError`; what "gone" means is decided here once, by error code.
"""

from __future__ import annotations

import contextlib
import os
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import libvirt

from solstice.errors import Cause, InfraError
from solstice.host import files
from solstice.hypervisors.libvirt import definition, disk, network
from solstice.model import AttemptId, VmSpec
from solstice.protocol import order

_UNDEFINE = (
    libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
    | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
)
_REMEDY = "see that libvirtd runs and that this user is in the group libvirt: `virsh -c {uri} list` must work"


class Libvirt:
    carries_guest = True

    def __init__(self, settings: order.Hypervisor) -> None:
        self._settings = settings
        # libvirt prints every error to stderr as well, unless a handler of ours takes it.
        libvirt.registerErrorHandler(lambda _context, _error: None, None)
        try:
            self._connection = libvirt.open(settings.uri)
        except libvirt.libvirtError as error:
            raise InfraError(
                Cause.HYPERVISOR, f"cannot connect to {settings.uri}: {error}", _REMEDY.format(uri=settings.uri)
            ) from None

    def peers(self) -> frozenset[int]:
        """QEMU's user as libvirt's DAC driver has it (`+64055:+64055`), and our own for `qemu:///session`."""
        with _told("cannot read libvirt's capabilities"):
            capabilities = ET.fromstring(self._connection.getCapabilities())  # noqa: S314 - from libvirtd itself
        labels = capabilities.iterfind("host/secmodel[model='dac']/baselabel")
        return frozenset({os.getuid(), *(int((label.text or "").split(":")[0]) for label in labels)})

    def version(self) -> int:
        with _told("cannot read QEMU's version"):
            return int(self._connection.getVersion())

    def ensure_network(self) -> None:
        with _told("cannot make the network ready"):
            network.ensure(self._connection, self._settings.network)

    def prepare(self, vm: VmSpec) -> None:
        self.ensure_network()
        disk.make_overlay(vm)
        xml = definition.domain_xml(vm, self._settings.network, self._settings.domain_type)
        with _told("cannot define the domain"):
            self._connection.defineXML(xml)

    def start(self, id: AttemptId) -> None:
        with _told("cannot start the domain"):
            domain = self._connection.lookupByName(id.name)
            if not domain.isActive():
                domain.create()

    def is_running(self, id: AttemptId) -> bool:
        with _told("cannot read the domain's state"):
            domain = self._find(id)
            return domain is not None and bool(domain.isActive())

    def request_shutdown(self, id: AttemptId) -> None:
        with _told("cannot ask the domain to shut down"):
            domain = self._find(id)
            if domain is not None:
                with _unless_stopped():
                    domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN)

    def destroy(self, id: AttemptId) -> None:
        with _told("cannot destroy the domain"):
            domain = self._find(id)
            if domain is not None:
                with _unless_stopped():
                    domain.destroy()

    def remove(self, id: AttemptId, directory: Path) -> None:
        with _told("cannot undefine the domain"):
            domain = self._find(id)
            if domain is not None:
                with _unless_stopped():
                    domain.undefineFlags(_UNDEFINE)
        # Only now: QEMU must not lose a disk that it still has open.
        files.remove_tree(directory)

    def list_owned(self, owner: str) -> list[AttemptId]:
        with _told("cannot list the domains"):
            return [id for domain in self._connection.listAllDomains() if (id := _owned(domain, owner)) is not None]

    def close(self) -> None:
        with contextlib.suppress(libvirt.libvirtError):
            self._connection.close()

    def _find(self, id: AttemptId) -> libvirt.virDomain | None:
        try:
            return self._connection.lookupByName(id.name)
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                return None
            raise


def _owned(domain: libvirt.virDomain, owner: str) -> AttemptId | None:
    """The identity of a domain that is this owner's, by its name and by its metadata; else None."""
    id = AttemptId.parse(domain.name())
    if id is None or id.owner != owner:
        return None
    try:
        metadata = domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, definition.NAMESPACE)
    except libvirt.libvirtError as error:
        # Without our element it is somebody else's domain with a name like ours; or it went away while we listed.
        if error.get_error_code() in (libvirt.VIR_ERR_NO_DOMAIN_METADATA, libvirt.VIR_ERR_NO_DOMAIN):
            return None
        raise
    return id if definition.owner_of(metadata) == owner else None


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    try:
        yield
    except libvirt.libvirtError as error:
        raise InfraError(Cause.HYPERVISOR, f"{what}: {error}") from None


@contextlib.contextmanager
def _unless_stopped() -> Iterator[None]:
    """A domain that stopped or vanished between our look and our call is what the caller wanted."""
    try:
        yield
    except libvirt.libvirtError as error:
        if error.get_error_code() not in (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID):
            raise
