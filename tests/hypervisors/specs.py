"""The VMs whose domain XML is held by golden files, and the XML as those files have it.

What depends on the host (the processor's name) and what every release changes (our version) is replaced by a word.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass, replace
from pathlib import Path

from solstice import __version__
from solstice.hypervisors.libvirt import definition
from solstice.model import AttemptId, DiskFormat, DomainType, Resources, SeedBus, VmSpec

FOLDER = Path(__file__).with_name("golden")
ID = AttemptId(owner="0123456789ab", job="6f9b2c4e-1d3a-4b5c-8e7f-a0b1c2d3e4f5", attempt=2)
VM = VmSpec(
    id=ID,
    label="tiny",
    base=Path("/srv/images/tiny.qcow2"),
    base_format=DiskFormat.QCOW2,
    directory=Path("/var/lib/solstice/jobs") / ID.job / "2" / "vm",
    resources=Resources(cpus=2, memory_mib=512),
)


@dataclass(frozen=True, slots=True)
class Case:
    """One golden file."""

    vm: VmSpec
    domain_type: DomainType = DomainType.QEMU

    def xml(self) -> str:
        text = definition.domain_xml(self.vm, "default", self.domain_type)
        return text.replace(f'arch="{platform.machine()}"', 'arch="MACHINE"').replace(
            f'version="{__version__}"', 'version="VERSION"'
        )


CASES = {
    "virtio-seed": Case(VM),
    "sata-seed": Case(replace(VM, seed_bus=SeedBus.SATA)),
    "no-seed": Case(replace(VM, nocloud=False)),
    "kvm": Case(VM, DomainType.KVM),
    "raw-base": Case(replace(VM, base=Path("/srv/images/tiny.raw"), base_format=DiskFormat.RAW)),
}


def golden(name: str) -> Path:
    return FOLDER / f"{name}.xml"
