"""The libvirt network that guests are attached to: made active, and set to autostart, if it is not."""

from __future__ import annotations

import libvirt

from solstice.errors import Cause, InfraError


def ensure(connection: libvirt.virConnect, name: str) -> None:
    """Let the network `name` be active now and after a reboot.  Raises `InfraError` if there is none of that name."""
    try:
        network = connection.networkLookupByName(name)
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_NETWORK:
            raise
        raise InfraError(
            Cause.HYPERVISOR,
            f"libvirt has no network named {name}",
            "name one by LIBVIRT_NETWORK (`virsh net-list --all` lists them), or define libvirt's own: "
            "virsh net-define /usr/share/libvirt/networks/default.xml",
        ) from None
    if not network.isActive():
        _activate(network)
    if not network.autostart():
        network.setAutostart(1)


def _activate(network: libvirt.virNetwork) -> None:
    try:
        network.create()
    except libvirt.libvirtError:
        # Two workers that start at once both see it inactive; the second create fails, and the network is up.
        if not network.isActive():
            raise
