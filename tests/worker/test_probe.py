"""The probe believes a kernel's words alone, leaves nothing behind, and does not ask twice without a reason."""

from __future__ import annotations

import secrets
import shutil
import socket
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from solstice.errors import Cause, InfraError
from solstice.host import places
from solstice.hypervisors import router
from solstice.hypervisors.base import Hypervisor
from solstice.hypervisors.noop import Noop
from solstice.model import AttemptId, Backend, DiskFormat, DomainType, Resources, VmSpec
from solstice.protocol import order
from solstice.protocol.order import ProbeResult
from solstice.worker import probe
from tests.real.libvirtd import Libvirtd

BOOT_ID = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
# of the noop back end, whose version is 0
KNOWN = ProbeResult(DomainType.KVM, BOOT_ID, 0, "found out earlier")


@pytest.fixture
def emulated(libvirtd: Libvirtd) -> order.Hypervisor:
    """Plain emulation, so that the answer does not depend on the host that tests run on."""
    return order.Hypervisor(Backend.LIBVIRT, libvirtd.uri, "default", DomainType.QEMU)


@pytest.fixture
def hypervisor(emulated: order.Hypervisor) -> Iterator[Hypervisor]:
    opened = router.open(emulated)
    yield opened
    opened.close()


@pytest.fixture
def vm(reachable: Path) -> VmSpec:
    """A probe's VM whose base image is not there yet."""
    id = AttemptId(secrets.token_hex(6), str(uuid.uuid4()), 0)
    directory = places.vm_of(reachable / "jobs", id)
    return VmSpec(id, "tiny", reachable / "base", DiskFormat.QCOW2, directory, Resources(memory_mib=256))


class Failing(Noop):
    """Its VM closes its console at once, and the calls that are named in `fails` raise."""

    def __init__(self, settings: order.Hypervisor, vm: VmSpec, *fails: str) -> None:
        super().__init__(settings)
        self._vm = vm
        self._fails = fails

    def start(self, id: AttemptId) -> None:
        super().start(id)
        with socket.socket(socket.AF_UNIX) as console:
            console.connect(str(self._vm.console_socket))

    def destroy(self, id: AttemptId) -> None:
        self._may_fail("destroy")
        super().destroy(id)

    def remove(self, id: AttemptId, directory: Path) -> None:
        self._may_fail("remove")
        super().remove(id, directory)

    def _may_fail(self, call: str) -> None:
        if call in self._fails:
            raise InfraError(Cause.HYPERVISOR, f"{call} failed")


def assert_nothing_left(vm: VmSpec, hypervisor: Hypervisor) -> None:
    assert hypervisor.list_owned(vm.id.owner) == []
    assert not vm.directory.parent.exists()
    assert_no_session(vm)


def assert_no_session(vm: VmSpec) -> None:
    titles = [" ".join(child.cmdline()) for child in psutil.Process().children()]
    assert [title for title in titles if vm.id.short in title] == []


@pytest.mark.libvirt
def test_an_image_with_a_kernel_boots(hypervisor: Hypervisor, vm: VmSpec, tiny_image: Path) -> None:
    # emulation on a busy host is slower than the hardware that the probe is for
    shutil.copyfile(tiny_image, vm.base)
    vm.base.chmod(0o444)
    assert probe._boots(hypervisor, vm, probe._ALIVE, 90.0)
    assert_nothing_left(vm, hypervisor)


@pytest.mark.libvirt
def test_firmware_without_a_kernel_does_not_count_as_booting(hypervisor: Hypervisor, vm: VmSpec) -> None:
    with vm.base.open("wb") as blank:
        blank.truncate(16 << 20)
    vm.base.chmod(0o444)
    assert not probe._boots(hypervisor, replace(vm, base_format=DiskFormat.RAW), probe._ALIVE, 5.0)
    assert_nothing_left(vm, hypervisor)


def test_a_known_result_that_still_holds_is_given_back_without_a_vm(noop: order.Hypervisor, vm: VmSpec) -> None:
    assert probe.probe(order.Probe(noop, vm, KNOWN)) is KNOWN
    assert not vm.directory.parent.exists()


@pytest.mark.parametrize(
    "known",
    [replace(KNOWN, boot_id=str(uuid.UUID(int=0))), replace(KNOWN, qemu_version=7_002_000), None],
    ids=["another boot", "another version of QEMU", "never"],
)
def test_what_was_found_in_another_boot_or_with_another_qemu_is_found_out_anew(
    monkeypatch: pytest.MonkeyPatch, noop: order.Hypervisor, vm: VmSpec, known: ProbeResult | None
) -> None:
    monkeypatch.setattr(probe, "PROBE_TIMEOUT", 0.2)
    found = probe.probe(order.Probe(noop, vm, known))
    # nothing runs in the noop back end, so no kernel says a word
    assert (found.domain_type, found.qemu_version) == (DomainType.QEMU, 0)
    if Path("/dev/kvm").exists():
        assert found.boot_id == BOOT_ID
    assert_nothing_left(vm, router.open(noop))


def test_a_boot_test_in_which_no_runner_says_hello_fails_and_leaves_nothing(noop: order.Hypervisor, vm: VmSpec) -> None:
    with pytest.raises(InfraError, match="did not say hello") as caught:
        probe.boot_test(order.BootTest(noop, vm, 0.2))
    assert caught.value.cause is Cause.BOOT_TIMEOUT
    assert_nothing_left(vm, router.open(noop))


def test_a_vm_that_ends_before_its_hello_is_not_taken_for_a_timeout(noop: order.Hypervisor, vm: VmSpec) -> None:
    hypervisor = Failing(noop, vm)
    with pytest.raises(InfraError) as caught:
        probe._boots(hypervisor, vm, probe._ALIVE, 10.0)
    assert caught.value.cause is Cause.VM_LOST
    assert_nothing_left(vm, hypervisor)


def test_the_session_ends_and_the_files_stay_when_the_vm_cannot_be_ended(noop: order.Hypervisor, vm: VmSpec) -> None:
    with pytest.raises(InfraError, match="destroy failed"):
        probe._boots(Failing(noop, vm, "destroy"), vm, probe._ALIVE, 10.0)
    assert_no_session(vm)
    assert vm.directory.exists(), "the VM may run still"


def test_the_session_and_the_files_go_when_the_vm_cannot_be_removed(noop: order.Hypervisor, vm: VmSpec) -> None:
    with pytest.raises(InfraError, match="remove failed"):
        probe._boots(Failing(noop, vm, "remove"), vm, probe._ALIVE, 10.0)
    assert_no_session(vm)
    assert not vm.directory.parent.exists()
