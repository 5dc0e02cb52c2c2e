"""Every back end keeps the contract of `hypervisors.base`: the same tests for noop and for libvirt.

The libvirt may be the host's own, with other owners' domains on it: each test is an owner of its own.
"""

from __future__ import annotations

import secrets
import shutil
import socket
import struct
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from solstice.errors import Cause, InfraError
from solstice.hypervisors import router
from solstice.hypervisors.base import Hypervisor
from solstice.model import AttemptId, Backend, DiskFormat, DomainType, Resources, VmSpec
from solstice.protocol import order
from tests.real.libvirtd import Libvirtd, virsh

SECONDS = 20.0
NAMESPACE = "https://solstice.invalid/attempt/1"
UCRED = struct.Struct("3i")
FOREIGN = """\
<domain type='qemu'>
  <name>{name}</name><metadata>{metadata}</metadata><memory unit='MiB'>64</memory><os><type>hvm</type></os>
</domain>
"""


class Host:
    """A back end, one owner on it, and the VMs that a test made, which are gone afterwards."""

    def __init__(self, hypervisor: Hypervisor, folder: Path, base: Path, cleanup: ExitStack) -> None:
        self.hypervisor = hypervisor
        self.owner = secrets.token_hex(6)
        self.listeners: dict[Path, socket.socket] = {}
        self._folder = folder
        self._base = base
        self._cleanup = cleanup

    def vm(self, owner: str = "") -> VmSpec:
        """A VM that nobody has prepared yet, with its directory and with sockets for it to connect to."""
        id = AttemptId(owner or self.owner, str(uuid.uuid4()), 1)
        directory = self._folder / id.short
        directory.mkdir(mode=0o711)
        vm = VmSpec(id, "tiny", self._base, DiskFormat.QCOW2, directory, Resources(memory_mib=256), nocloud=False)
        for path in (vm.runner_socket, vm.console_socket):
            listener = self._cleanup.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(str(path))
            path.chmod(0o666)
            listener.listen()
            listener.settimeout(SECONDS)
            self.listeners[path] = listener
        self._cleanup.callback(self._end, vm)
        return vm

    def prepared(self, owner: str = "") -> VmSpec:
        vm = self.vm(owner)
        self.hypervisor.prepare(vm)
        return vm

    def started(self, owner: str = "") -> VmSpec:
        vm = self.prepared(owner)
        self.hypervisor.start(vm.id)
        return vm

    def _end(self, vm: VmSpec) -> None:
        self.hypervisor.destroy(vm.id)
        self.hypervisor.remove(vm.id, vm.directory)


@pytest.fixture(params=["noop", pytest.param("libvirt", marks=pytest.mark.libvirt)])
def settings(request: pytest.FixtureRequest, reachable: Path) -> order.Hypervisor:
    if request.param == "noop":
        root = reachable / "noop"
        root.mkdir()
        return order.Hypervisor(Backend.NOOP, uri=str(root))
    server: Libvirtd = request.getfixturevalue("libvirtd")
    return order.Hypervisor(Backend.LIBVIRT, uri=server.uri, network="default", domain_type=DomainType.QEMU)


@pytest.fixture
def base(settings: order.Hypervisor, request: pytest.FixtureRequest, reachable: Path) -> Path:
    """The image that the VMs stand on; the noop back end needs none."""
    path = reachable / "base.qcow2"
    if settings.backend is Backend.LIBVIRT:
        shutil.copyfile(request.getfixturevalue("tiny_image"), path)
        path.chmod(0o444)
    return path


@pytest.fixture
def host(settings: order.Hypervisor, base: Path, reachable: Path) -> Iterator[Host]:
    with ExitStack() as cleanup:
        hypervisor = router.open(settings)
        cleanup.callback(hypervisor.close)
        yield Host(hypervisor, reachable, base, cleanup)


def names(ids: list[AttemptId]) -> list[str]:
    return sorted(id.name for id in ids)


def test_a_vm_is_prepared_started_destroyed_and_removed(host: Host) -> None:
    vm = host.prepared()
    assert not host.hypervisor.is_running(vm.id)
    host.hypervisor.start(vm.id)
    assert host.hypervisor.is_running(vm.id)
    host.hypervisor.destroy(vm.id)
    assert not host.hypervisor.is_running(vm.id)
    host.hypervisor.remove(vm.id, vm.directory)
    assert host.hypervisor.list_owned(host.owner) == []


def test_every_call_may_be_repeated(host: Host) -> None:
    vm = host.prepared()
    host.hypervisor.prepare(vm)
    host.hypervisor.start(vm.id)
    host.hypervisor.start(vm.id)
    assert host.hypervisor.is_running(vm.id)
    host.hypervisor.destroy(vm.id)
    host.hypervisor.destroy(vm.id)
    host.hypervisor.remove(vm.id, vm.directory)
    host.hypervisor.remove(vm.id, vm.directory)
    assert host.hypervisor.list_owned(host.owner) == []


def test_a_shutdown_may_be_asked_for_twice_and_of_a_vm_that_has_stopped(host: Host) -> None:
    vm = host.started()
    host.hypervisor.request_shutdown(vm.id)
    host.hypervisor.request_shutdown(vm.id)
    host.hypervisor.destroy(vm.id)
    host.hypervisor.request_shutdown(vm.id)
    assert not host.hypervisor.is_running(vm.id)


def test_a_vm_that_never_was_does_not_run_and_is_ended_and_removed_without_complaint(host: Host) -> None:
    vm = host.vm()
    assert not host.hypervisor.is_running(vm.id)
    host.hypervisor.request_shutdown(vm.id)
    host.hypervisor.destroy(vm.id)
    host.hypervisor.remove(vm.id, vm.directory)
    assert not vm.directory.exists()


def test_a_vm_that_was_not_prepared_cannot_be_started(host: Host) -> None:
    with pytest.raises(InfraError) as raised:
        host.hypervisor.start(host.vm().id)
    assert raised.value.cause is Cause.HYPERVISOR


def test_the_owners_vms_are_listed_whether_they_run_or_not(host: Host) -> None:
    made = [host.prepared().id, host.started().id]
    assert names(host.hypervisor.list_owned(host.owner)) == names(made)


def test_another_owners_vms_are_not_listed(host: Host) -> None:
    mine, other = host.prepared(), host.prepared(owner=secrets.token_hex(6))
    assert host.hypervisor.list_owned(host.owner) == [mine.id]
    assert host.hypervisor.list_owned(other.id.owner) == [other.id]


def test_nothing_of_the_directory_is_left_after_remove(host: Host) -> None:
    vm = host.started()
    (vm.directory / "deeper").mkdir()
    (vm.directory / "deeper" / "file").write_text("left by whoever")
    host.hypervisor.destroy(vm.id)
    host.hypervisor.remove(vm.id, vm.directory)
    assert not vm.directory.exists()


@pytest.mark.libvirt
@pytest.mark.parametrize("settings", ["libvirt"], indirect=True)
@pytest.mark.parametrize("metadata", ["", f"<s:attempt xmlns:s='{NAMESPACE}' owner='ffffffffffff'/>"])
def test_a_domain_with_a_name_like_ours_but_not_our_metadata_is_not_listed(
    host: Host, reachable: Path, metadata: str
) -> None:
    name = AttemptId(host.owner, str(uuid.uuid4()), 1).name
    xml = reachable / "foreign.xml"
    xml.write_text(FOREIGN.format(name=name, metadata=metadata))
    defined = virsh("define", str(xml))
    assert defined.returncode == 0, defined.stderr
    try:
        assert host.hypervisor.list_owned(host.owner) == []
    finally:
        assert virsh("undefine", name).returncode == 0


@pytest.mark.libvirt
@pytest.mark.parametrize("settings", ["libvirt"], indirect=True)
def test_the_base_image_keeps_its_owner_while_a_vm_runs_on_it(host: Host, base: Path) -> None:
    before = base.stat()
    host.started()
    assert (base.stat().st_uid, base.stat().st_gid) == (before.st_uid, before.st_gid)


@pytest.mark.libvirt
@pytest.mark.parametrize("settings", ["libvirt"], indirect=True)
def test_a_base_image_that_is_gone_is_an_error_of_the_image(host: Host, base: Path) -> None:
    vm = replace(host.vm(), base=base.with_name("gone.qcow2"))
    with pytest.raises(InfraError) as raised:
        host.hypervisor.prepare(vm)
    assert raised.value.cause is Cause.IMAGE
    assert host.hypervisor.list_owned(host.owner) == []


@pytest.mark.libvirt
@pytest.mark.parametrize("settings", ["libvirt"], indirect=True)
def test_the_user_that_a_vm_connects_as_is_among_the_peers(host: Host) -> None:
    vm = host.started()
    connection, _ = host.listeners[vm.runner_socket].accept()
    with connection:
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size)
    _pid, uid, _gid = UCRED.unpack(credentials)
    assert uid in host.hypervisor.peers()
