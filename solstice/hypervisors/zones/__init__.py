"""The place of the illumos back end: bhyve zones on ZFS.

It has the same file names as `hypervisors/libvirt/`: `hypervisor` keeps the contract, `definition` makes the
configuration as text, `disk` the throw-away disk, `network` the way out.  `router.choose` refuses it until it is there.
"""
