"""The tiny and the Debian guest boot from hand-written XML: no code of Solstice's own takes part."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pycdlib
import pytest

from tests.real.libvirtd import Libvirtd, virsh
from tests.real.waiting import until

SILENCE_SECONDS = 120.0
PORT = "org.solstice.runner.0"
DOMAIN = """\
<domain type='qemu'>
  <name>{name}</name>
  <memory unit='MiB'>{memory}</memory>
  <vcpu>1</vcpu>
  <os><type arch='x86_64' machine='q35'>hvm</type><boot dev='hd'/><bootmenu enable='no'/></os>
  <features><acpi/></features>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2' cache='unsafe' discard='unmap'/>
      <source file='{folder}/disk.qcow2'/><target dev='vda' bus='virtio'/>
    </disk>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw'/>
      <source file='{folder}/seed.iso'/><target dev='vdb' bus='virtio'/><readonly/>
    </disk>
    <interface type='network'><source network='default'/><model type='virtio'/><rom enabled='no'/></interface>
    <serial type='file'><source path='{folder}/console.log'/><target port='0'/></serial>
    <channel type='unix'>
      <source mode='connect' path='{folder}/port.sock'><reconnect enabled='yes' timeout='1'/></source>
      <target type='virtio' name='{port}'/>
    </channel>
    <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>
    <memballoon model='none'/>
  </devices>
</domain>
"""
USER_DATA = f"""\
#!/bin/sh
exec 3>/dev/virtio-ports/{PORT}
echo "host=$(hostname)" >&3
until address=$(ip -4 addr | grep -o 'inet 192[.]168[.][0-9.]*'); do sleep 0.1; done
echo "$address" >&3
"""


def write_seed(path: Path, hostname: str) -> None:
    iso = pycdlib.PyCdlib()
    iso.new(vol_ident="cidata", rock_ridge="1.09", joliet=3)
    texts = {"user-data": USER_DATA, "meta-data": f"instance-id: {hostname}\nlocal-hostname: {hostname}\n"}
    for number, (name, text) in enumerate(texts.items()):
        source = path.with_name(name)
        source.write_text(text)
        iso.add_file(str(source), f"/FILE{number}.;1", rr_name=name, joliet_path=f"/{name}")
    iso.write(str(path))
    iso.close()


class Guest:
    """A domain made from the XML above; its port is read here, and it is gone when the test ends."""

    def __init__(self, name: str, folder: Path, image: Path, memory: int) -> None:
        self.name = name
        self._console = folder / "console.log"
        disk = folder / "disk.qcow2"
        shutil.copyfile(image, disk)
        write_seed(folder / "seed.iso", name)
        path = folder / "port.sock"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.settimeout(SILENCE_SECONDS)
        self._listener.bind(str(path))
        path.chmod(0o777)
        self._listener.listen()
        xml = folder / "domain.xml"
        xml.write_text(DOMAIN.format(name=name, folder=folder, memory=memory, port=PORT))
        made = virsh("create", str(xml))
        assert made.returncode == 0, made.stderr

    def lines(self) -> Iterator[str]:
        """What the guest writes to its port, until it ends.  Raises `TimeoutError` if it is silent for too long."""
        port, _ = self._listener.accept()
        port.settimeout(SILENCE_SECONDS)
        with port, port.makefile("r", encoding="utf-8") as text:
            yield from text

    def wait_until_gone(self) -> None:
        until(
            lambda: virsh("domstate", self.name).returncode != 0,
            seconds=10,
            what="the end of the domain",
            evidence=lambda: self._console.read_text(errors="replace")[-2000:],
        )

    def close(self) -> None:
        self._listener.close()
        virsh("destroy", self.name)


@pytest.fixture
def boot(reachable: Path, libvirtd: Libvirtd) -> Iterator[Callable[[Path, int], Guest]]:
    guests: list[Guest] = []
    if "default" not in virsh("net-list", "--name").stdout.split():
        started = virsh("net-start", "default")
        assert started.returncode == 0, started.stderr

    def boot(image: Path, memory: int) -> Guest:
        guests.append(Guest(f"fixture-{reachable.name}", reachable, image, memory))
        return guests[-1]

    yield boot
    for guest in guests:
        guest.close()


@pytest.mark.libvirt
def test_the_tiny_guest_boots_to_its_user_data_and_ends_at_the_power_button(
    boot: Callable[[Path, int], Guest], tiny_image: Path
) -> None:
    guest = boot(tiny_image, 256)
    said = guest.lines()
    assert next(said) == f"host={guest.name}\n"
    assert next(said).startswith("inet 192.168.")
    assert virsh("shutdown", guest.name, "--mode", "acpi").returncode == 0
    assert list(said) == []
    guest.wait_until_gone()


@pytest.mark.libvirt
@pytest.mark.debian
def test_the_debian_guest_runs_its_user_data_with_stock_cloud_init_and_ends_at_the_power_button(
    boot: Callable[[Path, int], Guest], debian_image: Path
) -> None:
    guest = boot(debian_image, 1024)
    said = guest.lines()
    assert next(said) == f"host={guest.name}\n"
    assert next(said).startswith("inet 192.168.")
    assert virsh("shutdown", guest.name, "--mode", "acpi").returncode == 0
    assert list(said) == []
    guest.wait_until_gone()
