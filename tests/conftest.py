"""What every test may ask for, the environment in pytest's header, and the proof that nothing is left running.

The fixtures that start servers are session-wide and lazy: a run that selects no such test starts none of them.
"""

from __future__ import annotations

import os
import platform
import secrets
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

from tests.real import guests, leftovers
from tests.real.broker import Broker
from tests.real.libvirtd import Libvirtd
from tests.real.nginx import Nginx
from tests.real.postgresql import Postgresql
from tests.real.root import Root

_roots = pytest.StashKey[Path]()


def pytest_configure(config: pytest.Config) -> None:
    # SIGTERM is how a CI ends a run that takes too long; the servers end with their fixtures, as on Ctrl-C
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    os.environ[leftovers.MARKER] = uuid.uuid4().hex
    # not under pytest's own folders, which are closed to others: QEMU runs as a user of its own
    root = Path(tempfile.mkdtemp(prefix="solstice-tests-"))
    root.chmod(0o711)
    config.stash[_roots] = root


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(config.stash[_roots])


def pytest_report_header() -> list[str]:
    python = ", ".join(f"{name} {_library(name)}" for name in ("pika", "libvirt-python", "SQLAlchemy"))
    packages = ", ".join(
        f"{name} {_package(name)}" for name in ("libvirt-daemon", "qemu-system-x86", "rabbitmq-server", "postgresql")
    )
    return [f"python {platform.python_version()}, {python}", f"{platform.system()} {platform.release()}, {packages}"]


def _library(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "missing"


def _package(name: str) -> str:
    argv = ["dpkg-query", "--show", "--showformat=${Version}", name]
    try:
        return subprocess.run(argv, capture_output=True, text=True, timeout=10, check=True).stdout or "missing"
    except (OSError, subprocess.CalledProcessError):
        return "missing"


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """After the last fixture is gone, no process of this run may be left."""
    left = leftovers.find(session.config.stash[_roots])
    if left:
        for process in left:
            print(f"\nleft running by the tests, killed now: {process}")
            process.kill()
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture
def reachable(pytestconfig: pytest.Config) -> Iterator[Path]:
    """An empty folder of this test alone, with a short path, which QEMU's user can enter; removed afterwards."""
    # a name that is a host name as well: mkdtemp would put underscores into it
    folder = pytestconfig.stash[_roots] / secrets.token_hex(4)
    folder.mkdir()
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def libvirtd() -> Iterator[Libvirtd]:
    """A libvirtd that answers at `libvirtd.uri`; its default network may not be active."""
    server = Libvirtd()
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def broker() -> Iterator[Broker]:
    """A RabbitMQ of this run alone."""
    server = Broker()
    server.start()
    yield server
    server.close()


@pytest.fixture(scope="session")
def nginx() -> Iterator[Nginx]:
    """An nginx of this run alone."""
    server = Nginx()
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture(scope="session")
def broker4() -> Iterator[Broker]:
    """A RabbitMQ 4 of this run alone, from a Debian 13 root; the first use on a host makes that."""
    server = Broker(Root(guests.rabbitmq4_root()))
    server.start()
    yield server
    server.close()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Postgresql]:
    """A PostgreSQL server of this run alone."""
    server = Postgresql()
    server.start()
    yield server
    server.close()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a fresh database: the test runs once with each kind that there is."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'test.db'}"
    else:
        with request.getfixturevalue("postgresql").database() as url:
            yield url


@pytest.fixture
def vhost(broker: Broker) -> str:
    """The AMQP URL of a fresh virtual host, so that no test meets the queues of another."""
    return broker.new_vhost()


@pytest.fixture(scope="session")
def tiny_image() -> Path:
    """The tiny guest's qcow2, read-only, where QEMU may not reach it: copy it."""
    return guests.tiny_image()


@pytest.fixture(scope="session")
def debian_image() -> Path:
    """The Debian guest's qcow2, read-only, where QEMU may not reach it: copy it."""
    return guests.debian_image()
