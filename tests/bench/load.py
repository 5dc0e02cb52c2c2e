"""What the measurements stand on: a RabbitMQ and a `solstice serve` of their own, jobs in, results out.

The back end is noop: everything of Solstice takes part but the hypervisor.  The limits are set so that none of them
but `MAX_CONCURRENCY` and `PENDING_LIMIT` ever holds a job back.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pika
import psutil

from solstice.broker.topology import RESULTS, Topology
from solstice.protocol import jobrequest
from tests.e2e.service import Service
from tests.real.broker import Broker
from tests.real.waiting import until

CONCURRENCY = 16
_SILENCE_SECONDS = 60.0
_SETTINGS = {
    "MAX_CONCURRENCY": str(CONCURRENCY),
    "CAPACITY_MAP": f"tiny={CONCURRENCY}",
    "AMQP_PREFETCH": str(2 * CONCURRENCY),
    "PENDING_LIMIT": str(8 * CONCURRENCY),
    "MAX_BOOTING": str(CONCURRENCY),
    "CPU_OVERCOMMIT": "64",
    "MEMORY_RESERVE": "0",
    "DISK_FLOOR": "0",
}


class Missing(Exception):
    """Not every job had its result; the text says how many, and the end of the service's log."""


class Load:
    """A service that takes jobs, and a client of its broker."""

    def __init__(self, service: Service, broker: Broker) -> None:
        self.service = service
        self.broker = broker
        self._connection = pika.BlockingConnection(pika.URLParameters(service.amqp_url))
        self._channel = self._connection.channel()

    def run(self, count: int) -> float:
        """Have `count` jobs run; seconds from the first request sent to the last result received.

        Raises `Missing` if one of them has no result, another one than success, or two.
        """
        began = time.monotonic()
        waiting = {self._send() for _ in range(count)}
        results = self._channel.consume(RESULTS, auto_ack=True, inactivity_timeout=_SILENCE_SECONDS)
        while waiting:
            body = next(results)[2]
            if body is None:
                raise Missing(f"{len(waiting)} of {count} jobs have no result:\n{self.service.text[-3000:]}")
            event = json.loads(body)
            if event["state"] != "succeeded" or event["job_id"] not in waiting:
                raise Missing(f"this result was not expected: {event}")
            waiting.remove(event["job_id"])
        return time.monotonic() - began

    def settle(self) -> None:
        """Wait until the host is free of every job."""
        until(
            lambda: not self.service.ask("status")["active"],
            seconds=_SILENCE_SECONDS,
            what="an idle host",
            evidence=lambda: self.service.text[-3000:],
        )

    def processes(self) -> dict[str, psutil.Process]:
        """The processes that a job passes through, by their part."""
        return {
            "supervisor": psutil.Process(self.service.process.pid),
            "store": self.service.child("solstice: store"),
            "fork server": self.service.child("solstice: forkserver"),
            "broker": psutil.Process(self.broker.pid),
        }

    def close(self) -> None:
        if self._connection.is_open:
            self._connection.close()

    def _send(self) -> str:
        request = jobrequest.new_request(steps=[{"run": "true"}])
        body = json.dumps(jobrequest.to_document(request)).encode()
        topology = Topology()
        # no confirms: what the broker loses is missing in the end
        properties: Any = pika.BasicProperties(delivery_mode=2)
        self._channel.basic_publish(topology.exchange, topology.routing_key, body, properties)
        return request.request_id


@contextmanager
def loaded() -> Iterator[Load]:
    """A fresh broker, service and client; all of it is gone afterwards."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="solstice-bench-")))
        broker = Broker()
        stack.callback(broker.close)
        broker.start()
        service = Service(folder, broker.new_vhost(), None, **_SETTINGS)
        service.launch()
        stack.callback(service.close)
        service.said(r"connected to amqp")
        load = Load(service, broker)
        stack.callback(load.close)
        yield load
