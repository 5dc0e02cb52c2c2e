"""The two parts in which wholes differ: what runs their VMs, and what keeps their database."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Protocol

from tests.crash.disk import Disk
from tests.crash.overlap import Overlaps
from tests.e2e.service import Service
from tests.real.libvirtd import Libvirtd, virsh
from tests.real.postgresql import Postgresql


class Backend(Protocol):
    """`fail_to_clean` lets a worker of `job` fail when it cleans its VM, until `let_clean`."""

    image: Path | None
    settings: dict[str, str]
    others: int
    """How many jobs run beside the one that is hit."""

    def fail_to_clean(self, service: Service, job: str) -> None: ...

    def let_clean(self, service: Service, job: str) -> None: ...

    def look(self, service: Service) -> None:
        """Raises `AssertionError` if an attempt ran beside another one of its job."""
        ...

    def close(self, service: Service) -> None: ...


class Noop:
    def __init__(self, state: Path) -> None:
        self.image: Path | None = None
        self.settings: dict[str, str] = {}
        self.others = 2
        self._overlaps = Overlaps(state / "noop")

    def fail_to_clean(self, service: Service, job: str) -> None:
        (vm,) = (service.state / "noop").glob(f"*-{job}-*")
        vm.unlink()
        vm.mkdir()

    def let_clean(self, service: Service, job: str) -> None:
        (vm,) = (service.state / "noop").glob(f"*-{job}-*")
        vm.rmdir()

    def look(self, service: Service) -> None:
        self._overlaps.look()

    def close(self, service: Service) -> None:
        self._overlaps.close()


class Libvirt:
    def __init__(self, libvirtd: Libvirtd, image: Path) -> None:
        self.image: Path | None = image
        self.settings = {"LIBVIRT_URI": libvirtd.uri}
        self.others = 0  # a VM in plain emulation takes a CPU for seconds
        self._libvirtd = libvirtd

    def fail_to_clean(self, service: Service, job: str) -> None:
        self._libvirtd.kill()

    def let_clean(self, service: Service, job: str) -> None:
        self._libvirtd.revive()

    def look(self, service: Service) -> None:
        pass  # libvirt has no two domains of one name, and the look at what is left finds one that came late

    def close(self, service: Service) -> None:
        for name in service.domains():
            virsh("destroy", name)
            virsh("undefine", name)


class Database(Protocol):
    url: str | None
    """None: the one in the state directory."""

    def fail(self, service: Service) -> None: ...

    def heal(self) -> None: ...


class Sqlite:
    url: str | None = None

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    def fail(self, service: Service) -> None:
        self._disk.fail(errno.EIO, f"{service.state}/solstice.db")

    def heal(self) -> None:
        self._disk.heal()


class Server:
    def __init__(self, postgresql: Postgresql, url: str) -> None:
        self.url: str | None = url
        self._postgresql = postgresql

    def fail(self, service: Service) -> None:
        self._postgresql.crash()

    def heal(self) -> None:
        self._postgresql.start()
