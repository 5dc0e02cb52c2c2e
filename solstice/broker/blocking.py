"""What the command line's modules of the broker share: a connection of their own, its errors, a confirmed publish.

Blocking, and nothing is waited out: whoever sits at the terminal is told what is wrong, and tries again.  Nothing is
declared: the topology is `serve`'s, and where it is missing that is an error, and no message lost.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pika
from pika.adapters.utils.connection_workflow import AMQPConnectorException

from solstice.broker import address
from solstice.broker.address import Address
from solstice.broker.topology import Topology
from solstice.errors import UsageError

_START_SERVE = "start `solstice serve` once on a host of this broker: it declares exchanges and queues"
_NOT_FOUND = 404


@contextlib.contextmanager
def connected(broker: Address) -> Iterator[Any]:
    """A channel of a new connection; closed with it, so that what it holds unacked goes back to its queue."""
    connection = pika.BlockingConnection(broker.named("command").parameters)
    try:
        yield connection.channel()
    finally:
        if connection.is_open:
            connection.close()


@contextlib.contextmanager
def errors(broker: Address) -> Iterator[None]:
    """Every failure of the broker as a `UsageError` with a remedy."""
    try:
        yield
    except pika.exceptions.ChannelClosedByBroker as error:
        if error.reply_code == _NOT_FOUND:
            raise UsageError(f"{broker.text} is not set up", error.reply_text, _START_SERVE) from None
        raise _verdict(broker, error) from None
    except (pika.exceptions.AMQPError, AMQPConnectorException, OSError) as error:
        raise _verdict(broker, error) from None


def publish(channel: Any, topology: Topology, body: bytes, properties: Any) -> None:
    """Send a request, and return when a queue has it; the channel has `confirm_delivery`.  Raises `UsageError`."""
    try:
        channel.basic_publish(topology.exchange, topology.routing_key, body, properties, mandatory=True)
    except pika.exceptions.UnroutableError:
        why = f"no queue is bound to exchange {topology.exchange} for {topology.routing_key}"
        raise UsageError("the request was not sent", why, _START_SERVE) from None
    except pika.exceptions.NackError:
        raise UsageError("the request was not sent", "the queue refused it", "see the broker's log") from None


def _verdict(broker: Address, error: Exception) -> UsageError:
    why = address.reason(error)
    if address.is_refusal(why):
        return address.refused(broker, why)
    return address.unreachable(broker, why)
