"""The Linux back end: QEMU through libvirt.

`hypervisor` keeps the contract, `definition` makes the domain's XML (pure), `disk` the overlay, `network` the way out.
"""
