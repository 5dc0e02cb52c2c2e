"""The command line's side of the broker: send one request, follow the events of one job.  Blocking.

Each call has a connection of its own, closed before it returns.  Nothing durable is declared here: the topology is
`serve`'s, and a request sent to a broker without it is an error that says so, not a message lost.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self

from solstice.broker import address
from solstice.broker.address import SYSTEM, Tls
from solstice.broker.blocking import connected, errors, publish
from solstice.broker.publisher import properties
from solstice.broker.topology import EVENTS, TERMINAL, Topology

# How long one wait for the broker may take before the caller's deadline is looked at again.
_SLICE = 1.0

Event = Mapping[str, Any]


def publish_request(url: str, topology: Topology, document: Mapping[str, Any], tls: Tls = SYSTEM) -> None:
    """Send a `jobrequest.v1`; its `request_id` is the message's id.  Returns when a queue has it.

    Raises `UsageError` if the broker cannot be reached, refuses, or has no queue for it.
    """
    broker = address.parse(url, tls)
    body = json.dumps(document, allow_nan=False).encode()
    with errors(broker), connected(broker) as channel:
        channel.confirm_delivery()
        publish(channel, topology, body, properties(str(document["request_id"]), {}))


class ResultListener:
    """Hears every event from the moment it is entered: enter it before the request is published.

    It listens with a queue of its own that the broker deletes with the connection.
    """

    def __init__(self, url: str, tls: Tls = SYSTEM) -> None:
        """Raises `UsageError` if `url` is not the address of a broker, or a file of `tls` is wrong."""
        self._broker = address.parse(url, tls)

    def __enter__(self) -> Self:
        """Raises `UsageError` if the broker cannot be reached, refuses, or has no exchange for events."""
        with errors(self._broker), contextlib.ExitStack() as stack:
            self._channel = stack.enter_context(connected(self._broker))
            self._queue = self._channel.queue_declare("", exclusive=True, auto_delete=True).method.queue
            self._channel.queue_bind(self._queue, EVENTS, "job.#")
            self._resources = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._resources.close()

    def wait(self, job: str, deadline: float, on_event: Callable[[Event], None]) -> Event | None:
        """Call `on_event` with each event of `job`, and return the terminal one.

        None when `deadline` (monotonic) passes first.  Raises `UsageError` if the connection is lost.
        """
        with errors(self._broker):
            for body in self._bodies(deadline):
                event = _event_of(job, body)
                if event is None:
                    continue
                on_event(event)
                if event.get("state") in TERMINAL:
                    return event
        return None

    def _bodies(self, deadline: float) -> Iterator[bytes]:
        consuming = self._channel.consume(self._queue, auto_ack=True, inactivity_timeout=_SLICE)
        for _method, _properties, body in consuming:
            if body is not None:
                yield body
            if time.monotonic() >= deadline:
                return


def _event_of(job: str, body: bytes) -> Event | None:
    """The event in `body` if it is one of `job`.  Anyone may publish to the exchange: nonsense is passed over."""
    try:
        event = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if isinstance(event, dict) and event.get("job_id", event.get("request_id")) == job:
        return event
    return None
