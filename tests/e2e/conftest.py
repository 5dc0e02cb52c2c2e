"""A service per test, on noop or on libvirt; whatever the test does, it is ended afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.service import Service
from tests.real.libvirtd import Libvirtd

Make = Callable[..., Service]


@pytest.fixture
def noop(reachable: Path, vhost: str) -> Iterator[Service]:
    """A started service that runs nothing."""
    service = Service(reachable, vhost, None)
    service.start()
    yield service
    service.close()


@pytest.fixture
def host(reachable: Path, vhost: str) -> Iterator[Make]:
    """Makes started services that run nothing; settings as keyword arguments."""
    made: list[Service] = []

    def make_one(**environment: str) -> Service:
        made.append(Service(reachable, vhost, None, **environment))
        made[-1].start()
        return made[-1]

    yield make_one
    for service in made:
        service.close()


@pytest.fixture
def make(reachable: Path, vhost: str, libvirtd: Libvirtd, tiny_image: Path) -> Iterator[Make]:
    """Makes services on libvirt with the tiny guest, not started; settings as keyword arguments."""
    made: list[Service] = []

    def make_one(**environment: str) -> Service:
        made.append(Service(reachable, vhost, tiny_image, LIBVIRT_URI=libvirtd.uri, **environment))
        return made[-1]

    yield make_one
    for service in made:
        service.close()


@pytest.fixture
def service(make: Make) -> Service:
    """A started service on libvirt with the tiny guest."""
    one = make()
    one.start()
    return one
