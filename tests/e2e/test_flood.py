"""Two thousand jobs of five labels through one host, and everything on the way that a broker can do to it."""

from __future__ import annotations

import gc
import json
import random
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pika
import pytest

from solstice.broker.topology import RESULTS, Topology
from tests.e2e.service import Service, dead_letters, document
from tests.real.broker import Broker
from tests.real.recorder import Recorder
from tests.real.waiting import until

pytestmark = pytest.mark.broker

LABELS = ("one", "two", "three", "four", "five")
JOBS, REPEATS, MALFORMED = 2000, 200, 200
IMAGE_MAP = "default_label: one\nimages:\n" + "".join(
    f"  {name}:\n    source: /x/{name}\n    local_path: /x/{name}\n" for name in LABELS
)
ENVIRONMENT = {
    "MAX_CONCURRENCY": "16",
    "CAPACITY_MAP": "one=4,two=8",
    "MAX_BOOTING": "16",
    "CPU_OVERCOMMIT": "64",
    "MEMORY_RESERVE": "0",
    "LOG_LEVEL": "warning",
}


def messages(seed: int) -> tuple[list[bytes], set[str]]:
    """Requests, repeats and malformed ones in one shuffled order, and the ids of the requests."""
    choice = random.Random(seed)  # noqa: S311 - not an adversary
    requests = [document(runs_on=choice.choice(LABELS)) for _ in range(JOBS)]
    valid = [json.dumps(request).encode() for request in requests]
    wrong = [json.dumps(document(runs_on="no label", request_id=str(uuid.uuid4()))).encode() for _ in range(MALFORMED)]
    everything = [*valid, *choice.sample(valid, REPEATS), *wrong]
    choice.shuffle(everything)
    return everything, {str(request["request_id"]) for request in requests}


@contextmanager
def channel_of(url: str) -> Iterator[Any]:
    connection = pika.BlockingConnection(pika.URLParameters(url))
    try:
        channel = connection.channel()
        channel.confirm_delivery()
        yield channel
    finally:
        if connection.is_open:
            connection.close()


def send(url: str, bodies: list[bytes]) -> None:
    """Each body confirmed, over any number of broker restarts; one that was not confirmed is sent again."""
    rest = list(bodies)

    def attempt() -> bool:
        try:
            with channel_of(url) as channel:
                while rest:
                    channel.basic_publish(Topology().exchange, Topology().routing_key, rest[-1], mandatory=True)
                    rest.pop()
        except (pika.exceptions.AMQPError, OSError):
            return False
        return True

    until(attempt, seconds=120, what="a broker to send to", evidence=str)


class Results:
    """Everything that comes into the queue of the results, with a consumer of its own."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.states: dict[str, set[str]] = {}
        self.repeats = 0

    def read(self) -> None:
        """What is there now."""
        with channel_of(self._url) as channel:
            while True:
                method, properties, body = channel.basic_get(RESULTS, auto_ack=True)
                if method is None:
                    return
                self._take(properties.message_id, json.loads(body))

    def _take(self, message_id: str, event: dict[str, Any]) -> None:
        seen = self.states.setdefault(event.get("job_id") or f"rejected {message_id}", set())
        self.repeats += f"{message_id} {event['state']}" in seen
        seen.add(f"{message_id} {event['state']}")

    @property
    def ended(self) -> set[str]:
        return {job for job in self.states if not job.startswith("rejected")}


# pika leaves its pair of wake-up sockets to the garbage collector when the broker goes at some moments of a connection.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_two_thousand_jobs_end_once_whatever_the_broker_does(reachable: Path, vhost: str, broker: Broker) -> None:
    bodies, ids = messages(seed=20261124)
    with Recorder(f"{vhost}?heartbeat=5") as recorder:
        service = Service(reachable, recorder.url, None, IMAGE_MAP, **ENVIRONMENT)
        service.launch()
        try:
            until(lambda: _declared(vhost), seconds=60, what="the host", evidence=lambda: service.text)
            results = Results(vhost)
            for part in range(3):
                share = bodies[part::3]
                sender = threading.Thread(target=send, args=(vhost, share))
                sender.start()
                if part:
                    broker.stop()
                    broker.start()
                sender.join()

            def over() -> bool:
                results.read()
                return results.ended >= ids

            until(over, seconds=240, what="the results", evidence=lambda: f"{len(results.ended)}\n{service.text}")
            letters = dead_letters(vhost)
            assert service.end() == 0
            results.read()
        finally:
            service.close()
        unacked = recorder.longest_unacked()
    gc.collect()  # while that warning is not an error
    assert results.ended == ids
    assert Counter(len(states) for job, states in results.states.items() if job in ids) == {1: JOBS}
    assert {letter["x-solstice-reason"] for letter, _ in letters} == {"request.invalid"}
    # one that was copied but not acked when the broker went is delivered, and copied, again
    assert len({body for _, body in letters}) == MALFORMED
    assert unacked < 1.0


def _declared(url: str) -> bool:
    try:
        with channel_of(url) as channel:
            channel.queue_declare(RESULTS, passive=True)
    except pika.exceptions.AMQPError:
        return False
    return True
