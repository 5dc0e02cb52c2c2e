"""`tests/run --soak [MINUTES]`: kills one process after the other, by chance, while jobs keep arriving, and counts.

Each attempt is a VM of libvirt, from an image that is fetched.  The victims are the supervisor, RabbitMQ and libvirtd,
which are started again (a libvirtd of the host's own is spared), the store, the fork server, the images process, and a
worker.  The file's name keeps it out of every other run.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from solstice.broker.enqueue import publish_request
from solstice.broker.topology import Topology
from solstice.errors import UsageError
from solstice.protocol import jobrequest
from tests.crash.leftovers import look_for_leftovers
from tests.crash.matrix import seed
from tests.crash.results import Results
from tests.e2e.service import Service
from tests.real.broker import Broker
from tests.real.libvirtd import Libvirtd
from tests.real.waiting import until

MINUTES = "SOLSTICE_TEST_SOAK"
PAUSE = (0.5, 4.0)
# Each is a VM, in plain emulation perhaps: more than a small host can run would only wait.
ARRIVING = (0, 1)
LONGEST = 3.0
SECONDS = 600.0
# A job that did not succeed must have used up all of them, each by a fault of the host that was made here.
ATTEMPTS = 3
IMAGE_MAP = """\
default_label: tiny
images:
  tiny:
    source: {folder}/source.qcow2
    local_path: {folder}/fetched.qcow2
    resources: {{cpus: 1, memory: 512MiB}}
"""


class Soak:
    def __init__(
        self, service: Service, broker: Broker, libvirtd: Libvirtd, fetched: Path, chance: random.Random
    ) -> None:
        self._service = service
        self._broker = broker
        self._libvirtd = libvirtd
        self._fetched = fetched
        self._chance = chance
        self.jobs: list[str] = []
        self.killed: Counter[str] = Counter()

    def run(self, seconds: float) -> None:
        victims = [self._supervisor, self._store, self._fork_server, self._images, self._worker, self._rabbitmq]
        victims += [self._libvirt] if self._libvirtd.ours else []
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for _ in range(self._chance.randint(*ARRIVING)):
                self.jobs.append(self._submit())
            time.sleep(self._chance.uniform(*PAUSE))
            self._kill(self._chance.choice(victims))

    def _submit(self) -> str:
        """Send a request until the broker has confirmed it, as somebody would who wants it done."""
        request = jobrequest.new_request(steps=[{"run": f"sleep {self._chance.uniform(0.0, LONGEST):.1f}"}])
        sent = False
        while not sent:
            with suppress(UsageError):
                publish_request(self._service.amqp_url, Topology(), jobrequest.to_document(request))
                sent = True
        return request.request_id

    def _kill(self, victim: Callable[[], bool]) -> None:
        if victim():
            self.killed[victim.__name__.strip("_")] += 1

    def _supervisor(self) -> bool:
        self._service.end(signal.SIGKILL)
        self._service.start()
        return True

    def _store(self) -> bool:
        return self._kill_child("solstice: store")

    def _fork_server(self) -> bool:
        return self._kill_child("solstice: forkserver")

    def _images(self) -> bool:
        """What it had fetched is lost too, so that the next one has something to do; and is killed at it."""
        self._fetched.unlink(missing_ok=True)
        if not self._kill_child("solstice: images"):
            return False
        time.sleep(self._chance.uniform(0.0, 1.0))
        self._kill_child("solstice: images")
        return True

    def _worker(self) -> bool:
        pids = [active["pid"] for active in self._service.ask("status")["active"] if active["pid"]]
        if pids:
            with suppress(psutil.NoSuchProcess):
                psutil.Process(self._chance.choice(pids)).kill()
        return bool(pids)

    def _rabbitmq(self) -> bool:
        self._broker.kill()
        self._broker.start()
        return True

    def _libvirt(self) -> bool:
        self._libvirtd.kill()
        self._libvirtd.revive()
        return True

    def _kill_child(self, title: str) -> bool:
        """False if it is being started again just now."""
        with suppress(ValueError):
            self._service.child(title).kill()
            return True
        return False


@pytest.fixture
def service(reachable: Path, vhost: str, libvirtd: Libvirtd, tiny_image: Path) -> Iterator[Service]:
    shutil.copyfile(tiny_image, reachable / "source.qcow2")
    service = Service(
        reachable,
        vhost,
        tiny_image,
        IMAGE_MAP.format(folder=reachable),
        LIBVIRT_URI=libvirtd.uri,
        MAX_ATTEMPTS=str(ATTEMPTS),
        MAX_CONCURRENCY="4",
        CAPACITY_MAP="tiny=4",
    )
    service.start()
    yield service
    service.close()


def test_what_was_accepted_has_ended_and_was_published(
    reachable: Path, service: Service, broker: Broker, libvirtd: Libvirtd
) -> None:
    chance = random.Random(seed())  # noqa: S311
    soak = Soak(service, broker, libvirtd, reachable / "fetched.qcow2", chance)
    soak.run(float(os.environ[MINUTES]) * 60)
    results = Results(service.amqp_url)
    results.wait(soak.jobs, SECONDS)
    until(lambda: _is_idle(service), seconds=SECONDS, what="an idle host", evidence=lambda: service.text[-4000:])
    results.wait([], SECONDS)
    stored = {job: service.ask("job", job=job) for job in soak.jobs}
    states = {job: found["job"]["state"] for job, found in stored.items()}
    assert {job: ended.states for job, ended in results.of.items()} == {job: {state} for job, state in states.items()}
    assert {job: len(ended.ids) for job, ended in results.of.items()} == dict.fromkeys(soak.jobs, 1)
    look_for_leftovers(service, soak.jobs)
    failed = [found for found in stored.values() if found["job"]["state"] != "succeeded"]
    causes = Counter(attempt["cause"] for found in failed for attempt in found["attempts"])
    assert all(cause.startswith("infra.") for cause in causes), causes
    assert {len(found["attempts"]) >= ATTEMPTS for found in failed} <= {True}, failed
    count, killed = dict(Counter(states.values())), dict(soak.killed)
    print(f"accepted = ended = published = {len(soak.jobs)}: {count} (attempts {dict(causes)}); killed {killed}")


def _is_idle(service: Service) -> bool:
    status = service.ask("status")
    return not status["active"] and not status["pending"]
