"""Finds out whether hardware acceleration runs a guest on this host, by letting it run one.

`/dev/kvm` can exist, and even create a VM, on a host where no Linux guest ever gets going (nested and container
hosts); firmware and boot loader still print there.  So the probe boots a real image to the first words of its kernel,
or to its runner's hello, under a deadline.  The answer holds for one boot of the host and one version of QEMU.

The boot test of a new image is the same errand with another question: does its runner say hello?
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from setproctitle import setproctitle

from solstice.errors import Cause, InfraError
from solstice.host import files
from solstice.hypervisors import router
from solstice.hypervisors.base import Hypervisor
from solstice.model import DomainType, VmSpec
from solstice.protocol import order
from solstice.protocol.order import ProbeResult
from solstice.protocol.session import Begin, Event, decode_for_worker, encode
from solstice.worker import session_process, steps

PROBE_TIMEOUT = 15.0
_DEVICE = Path("/dev/kvm")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_ALIVE = (Event.KERNEL, Event.HELLO)


def probe(what: order.Probe) -> ProbeResult:
    """Whether to use `kvm` or `qemu` on this host.  Raises `InfraError` if the hypervisor fails or loses the VM."""
    setproctitle("solstice: probe kvm")
    hypervisor = router.open(replace(what.hypervisor, domain_type=DomainType.KVM))
    boot_id, version = _BOOT_ID.read_text().strip(), hypervisor.version()
    known = what.known
    if known is not None and (known.boot_id, known.qemu_version) == (boot_id, version):
        return known
    if not _DEVICE.exists():
        # Not an answer that holds: a module may be loaded at any time.
        return ProbeResult(DomainType.QEMU, "", version, f"{_DEVICE} does not exist")
    if _boots(hypervisor, what.vm, _ALIVE, PROBE_TIMEOUT):
        return ProbeResult(DomainType.KVM, boot_id, version, "a kernel booted with it")
    return ProbeResult(DomainType.QEMU, boot_id, version, f"no kernel printed a word within {PROBE_TIMEOUT:.0f} s")


def boot_test(what: order.BootTest) -> None:
    """Whether the image boots.  Raises `InfraError`: infra.boot_timeout if its runner does not say hello.

    Every other cause is the host's: also infra.vm_lost, for who ended the VM is not known here.
    """
    setproctitle(f"solstice: boot test {what.vm.label}")
    hypervisor = router.open(what.hypervisor)
    if not _boots(hypervisor, what.vm, (Event.HELLO,), what.timeout):
        raise InfraError(Cause.BOOT_TIMEOUT, f"its runner did not say hello within {what.timeout:.0f} s")


def _boots(hypervisor: Hypervisor, vm: VmSpec, wanted: Collection[Event], timeout: float) -> bool:
    """Whether the guest comes to one of the `wanted` events; afterwards nothing of it is left.

    Raises `InfraError`: infra.vm_lost if the VM ends before that.
    """
    record = vm.directory.parent
    steps.make_directories(vm, record)
    session = session_process.start(vm, record)
    try:
        session.channel.send(encode(Begin(tuple(hypervisor.peers()))))
        steps.prepare(hypervisor, vm)
        hypervisor.start(vm.id)
        deadline = time.monotonic() + timeout
        while (message := session.channel.receive(deadline)) is not None:
            told = decode_for_worker(message)
            if told.event in wanted:
                return True
            if told.event is Event.GONE:
                raise InfraError(Cause.VM_LOST, "the VM ended while its guest booted")
        return False
    finally:
        try:
            hypervisor.destroy(vm.id)
            try:
                hypervisor.remove(vm.id, vm.directory)
            finally:  # but not of a VM that may run still: a cleaner has to find it
                files.remove_tree(record.parent)
        finally:
            session.end()
