"""The domain's XML, from a `VmSpec`: a pure function, held by golden files.

Every value goes through ElementTree, so a hostile label or path cannot leave its attribute.  What is decided here:

- The worker listens on the two sockets and QEMU connects (`mode='connect'`, with reconnect): a socket that libvirt
  makes itself could be opened by root and QEMU's user only.  The console goes over a socket too, because as a file it
  would be written by root.
- The seed is a read-only virtio disk by default: cloud kernels of Debian and Ubuntu have no AHCI driver.
- The backing chain is written out, and the base has `relabel='no'`: otherwise libvirt takes the ownership of the
  base image when the domain starts, and never gives it back.
- `cache='unsafe'`: the overlay is thrown away, so nobody needs its flushes.
- No network boot ROM and no boot menu: they cost more than a second of every boot.
"""

from __future__ import annotations

import platform
import xml.etree.ElementTree as ET

from solstice import __version__
from solstice.model import AttemptId, DomainType, SeedBus, VmSpec

NAMESPACE = "https://solstice.invalid/attempt/1"
RUNNER_PORT = "org.solstice.runner.0"
_CPU = {DomainType.KVM: "host-passthrough", DomainType.QEMU: "maximum"}
_SEED_TARGET = {SeedBus.VIRTIO: "vdb", SeedBus.SATA: "sda"}


def domain_xml(vm: VmSpec, network: str, domain_type: DomainType) -> str:
    """The XML of one attempt's domain."""
    domain = ET.Element("domain", type=domain_type.value)
    _text(domain, "name", vm.id.name)
    _text(domain, "uuid", vm.id.uuid)
    _metadata(domain, vm.id)
    _text(domain, "memory", str(vm.resources.memory_mib), unit="MiB")
    _text(domain, "vcpu", str(vm.resources.cpus))
    os = ET.SubElement(domain, "os")
    _text(os, "type", "hvm", arch=platform.machine(), machine="q35")
    ET.SubElement(os, "boot", dev="hd")
    ET.SubElement(os, "bootmenu", enable="no")
    features = ET.SubElement(domain, "features")
    ET.SubElement(features, "acpi")
    ET.SubElement(features, "apic")
    ET.SubElement(domain, "cpu", mode=_CPU[domain_type])
    # A guest that reboots is noticed by the runner's second start, so the reboot itself is let happen.
    for event, action in (("on_poweroff", "destroy"), ("on_reboot", "restart"), ("on_crash", "destroy")):
        _text(domain, event, action)
    _devices(ET.SubElement(domain, "devices"), vm, network)
    ET.indent(domain)
    return ET.tostring(domain, encoding="unicode") + "\n"


def owner_of(metadata: str) -> str:
    """The owner id in the element that `_metadata` wrote; empty if there is none."""
    return ET.fromstring(metadata).get("owner", "")  # noqa: S314 - libvirt's own output, of an element we wrote


def _metadata(domain: ET.Element, id: AttemptId) -> None:
    ET.register_namespace("solstice", NAMESPACE)
    attributes = {"owner": id.owner, "job": id.job, "attempt": str(id.attempt), "version": __version__}
    ET.SubElement(ET.SubElement(domain, "metadata"), f"{{{NAMESPACE}}}attempt", attributes)


def _devices(devices: ET.Element, vm: VmSpec, network: str) -> None:
    _overlay(devices, vm)
    if vm.nocloud:
        _seed(devices, vm)
    card = ET.SubElement(devices, "interface", type="network")
    ET.SubElement(card, "source", network=network)
    ET.SubElement(card, "model", type="virtio")
    ET.SubElement(card, "rom", enabled="no")
    console = ET.SubElement(devices, "serial", type="unix")
    _connect(console, str(vm.console_socket))
    ET.SubElement(console, "target", port="0")
    runner = ET.SubElement(devices, "channel", type="unix")
    _connect(runner, str(vm.runner_socket))
    ET.SubElement(runner, "target", type="virtio", name=RUNNER_PORT)
    rng = ET.SubElement(devices, "rng", model="virtio")
    _text(rng, "backend", "/dev/urandom", model="random")
    ET.SubElement(devices, "controller", type="usb", model="none")
    ET.SubElement(devices, "memballoon", model="none")
    ET.SubElement(ET.SubElement(devices, "video"), "model", type="none")


def _overlay(devices: ET.Element, vm: VmSpec) -> None:
    disk = ET.SubElement(devices, "disk", type="file", device="disk")
    ET.SubElement(disk, "driver", name="qemu", type="qcow2", cache="unsafe", discard="unmap")
    ET.SubElement(disk, "source", file=str(vm.overlay))
    backing = ET.SubElement(disk, "backingStore", type="file")
    ET.SubElement(backing, "format", type=vm.base_format.value)
    base = ET.SubElement(backing, "source", file=str(vm.base))
    ET.SubElement(base, "seclabel", model="dac", relabel="no")
    ET.SubElement(backing, "backingStore")
    ET.SubElement(disk, "target", dev="vda", bus="virtio")


def _seed(devices: ET.Element, vm: VmSpec) -> None:
    device = "cdrom" if vm.seed_bus is SeedBus.SATA else "disk"
    disk = ET.SubElement(devices, "disk", type="file", device=device)
    ET.SubElement(disk, "driver", name="qemu", type="raw")
    ET.SubElement(disk, "source", file=str(vm.seed))
    ET.SubElement(disk, "target", dev=_SEED_TARGET[vm.seed_bus], bus=vm.seed_bus.value)
    ET.SubElement(disk, "readonly")


def _connect(device: ET.Element, path: str) -> None:
    source = ET.SubElement(device, "source", mode="connect", path=path)
    ET.SubElement(source, "reconnect", enabled="yes", timeout="1")


def _text(parent: ET.Element, name: str, text: str, **attributes: str) -> None:
    ET.SubElement(parent, name, attributes).text = text
