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

import pika
from pika.adapters.utils.connection_workflow import AMQPConnectorException

from solstice.broker import address
from solstice.broker.address import Address
from solstice.broker.publisher import properties
from solstice.broker.topology import EVENTS, TERMINAL, Topology
from solstice.errors import UsageError

_START_SERVE = "start `solstice serve` once on a host of this broker: it declares exchanges and queues"
_NOT_FOUND = 404

# How long one wait for the broker may take before the caller's deadline is looked at again.
_SLICE = 1.0

Event = Mapping[str, Any]


def publish_request(url: str, topology: Topology, document: Mapping[str, Any]) -> None:
    """Send a `jobrequest.v1`; its `request_id` is the message's id.  Returns when a queue has it.

    Raises `UsageError` if the broker cannot be reached, refuses, or has no queue for it.
    """
    broker = address.parse(url)
    body = json.dumps(document, allow_nan=False).encode()
    with _errors(broker), _connected(broker) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        try:
            channel.basic_publish(
                topology.exchange,
                topology.routing_key,
                body,
                properties(str(document["request_id"]), {}),
                mandatory=True,
            )
        except pika.exceptions.UnroutableError:
            why = f"no queue is bound to exchange {topology.exchange} for {topology.routing_key}"
            raise UsageError("the request was not sent", why, _START_SERVE) from None


class ResultListener:
    """Hears every event from the moment it is entered: enter it before the request is published.

    It listens with a queue of its own that the broker deletes with the connection.
    """

    def __init__(self, url: str) -> None:
        """Raises `UsageError` if `url` is not the address of a broker."""
        self._broker = address.parse(url)

    def __enter__(self) -> Self:
        """Raises `UsageError` if the broker cannot be reached, refuses, or has no exchange for events."""
        with _errors(self._broker), contextlib.ExitStack() as stack:
            connection = stack.enter_context(_connected(self._broker))
            self._channel = connection.channel()
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
        with _errors(self._broker):
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


@contextlib.contextmanager
def _connected(broker: Address) -> Iterator[Any]:
    connection = pika.BlockingConnection(broker.parameters)
    try:
        yield connection
    finally:
        if connection.is_open:
            connection.close()


@contextlib.contextmanager
def _errors(broker: Address) -> Iterator[None]:
    """Every failure of the broker as a `UsageError` with a remedy."""
    try:
        yield
    except pika.exceptions.ChannelClosedByBroker as error:
        if error.reply_code == _NOT_FOUND:
            raise UsageError(f"{broker.text} is not set up", error.reply_text, _START_SERVE) from None
        raise _verdict(broker, error) from None
    except (pika.exceptions.AMQPError, AMQPConnectorException, OSError) as error:
        raise _verdict(broker, error) from None


def _verdict(broker: Address, error: Exception) -> UsageError:
    why = address.reason(error)
    if address.is_refusal(why):
        return address.refused(broker, why)
    return UsageError(
        f"the broker {broker.text} cannot be reached",
        why,
        "check AMQP_URL, and that the broker runs: rabbitmqctl status",
    )
