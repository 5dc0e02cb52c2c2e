"""The domain's XML is what the golden files have, and no value of it can leave its place."""

from __future__ import annotations

import platform
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest

from solstice import __version__
from solstice.hypervisors.libvirt import definition
from solstice.model import DomainType, VmSpec
from tests.hypervisors.specs import CASES, FOLDER, ID, VM, golden

HOSTILE = "/srv/a'b\"c<d>&amp;&e\nf\tg]]>\r/><domain type='kvm'/>é"


def parsed(vm: VmSpec, network: str = "default") -> ET.Element:
    return ET.fromstring(definition.domain_xml(vm, network, DomainType.QEMU))  # noqa: S314 - our own output


def shape(element: ET.Element) -> list[tuple[str, list[str]]]:
    return [(found.tag, sorted(found.attrib)) for found in element.iter()]


def attribute(domain: ET.Element, path: str, name: str) -> str | None:
    found = domain.find(path)
    assert found is not None, path
    return found.get(name)


@pytest.mark.parametrize("name", CASES)
def test_the_domain_is_what_its_golden_file_has(name: str) -> None:
    assert CASES[name].xml() == golden(name).read_text(), (
        f"{golden(name)} has another domain; if the change is meant: python -m tests.hypervisors.regenerate"
    )


def test_every_golden_file_belongs_to_a_case() -> None:
    assert sorted(FOLDER.iterdir()) == sorted(golden(name) for name in CASES)


def test_the_processor_and_the_version_are_those_of_this_host() -> None:
    domain = parsed(VM)
    assert attribute(domain, "os/type", "arch") == platform.machine()
    assert attribute(domain, f"metadata/{{{definition.NAMESPACE}}}attempt", "version") == __version__


def test_a_hostile_path_stays_in_its_attributes() -> None:
    vm = replace(VM, base=Path(HOSTILE), directory=Path(HOSTILE))
    domain = parsed(vm)
    assert shape(domain) == shape(parsed(VM))
    assert attribute(domain, "devices/disk/source", "file") == f"{HOSTILE}/overlay.qcow2"
    assert attribute(domain, "devices/disk/backingStore/source", "file") == HOSTILE
    assert attribute(domain, "devices/disk[2]/source", "file") == f"{HOSTILE}/seed.iso"
    assert attribute(domain, "devices/serial/source", "path") == f"{HOSTILE}/console.sock"
    assert attribute(domain, "devices/channel/source", "path") == f"{HOSTILE}/runner.sock"


def test_a_hostile_network_stays_in_its_attribute() -> None:
    domain = parsed(VM, network=HOSTILE)
    assert shape(domain) == shape(parsed(VM))
    assert attribute(domain, "devices/interface/source", "network") == HOSTILE


def test_a_label_changes_nothing() -> None:
    assert definition.domain_xml(replace(VM, label=HOSTILE), "default", DomainType.QEMU) == definition.domain_xml(
        VM, "default", DomainType.QEMU
    )


def test_the_domain_is_called_as_its_attempt_and_its_uuid_follows_from_that() -> None:
    domain = parsed(VM)
    assert domain.findtext("name") == ID.name
    assert domain.findtext("uuid") == ID.uuid


def test_the_owner_is_read_back_from_the_metadata() -> None:
    [element] = parsed(VM).iterfind("metadata/*")
    assert definition.owner_of(ET.tostring(element, encoding="unicode")) == ID.owner


def test_metadata_without_an_owner_has_none() -> None:
    assert definition.owner_of(f"<attempt xmlns='{definition.NAMESPACE}'/>") == ""
