"""The exchanges and queues of Solstice: their names, and what is declared, as data.

`serve` declares all of it on every connect, in the order of `Topology.declarations`; the command line declares
nothing and only uses the names.  A declaration is one call of a pika channel (method and arguments), so the
asyncio channel and the blocking one apply the same list.  What already stands is left as it is; where it stands with
other arguments, the broker refuses and the caller turns that into an error with a remedy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

DEAD_LETTERS = "solstice.dlx"
EVENTS = "solstice.events"
RESULTS = "solstice.results.v1"

# Two weeks for a reader who is late; then a result is only in the store.
RESULTS_TTL_MS = 14 * 24 * 3600 * 1000

TERMINAL = ("succeeded", "failed", "errored", "timed_out", "cancelled", "rejected")


@dataclass(frozen=True, slots=True)
class Declaration:
    """One call of a channel: `method` is queue_declare, exchange_declare or queue_bind."""

    method: str
    arguments: Mapping[str, Any]

    @property
    def subject(self) -> str:
        """What is declared, for error messages: `queue solstice.jobs.v1`."""
        kind = "exchange" if self.method == "exchange_declare" else "queue"
        return f"{kind} {self.arguments[kind]}"


@dataclass(frozen=True, slots=True)
class Topology:
    """Where requests are; the rest of the names follows from it."""

    exchange: str = "solstice.jobs"
    queue: str = "solstice.jobs.v1"
    routing_key: str = "jobrequest.v1"

    @property
    def dead_letter_queue(self) -> str:
        """The queue of the dead letters, and their routing key in the exchange `DEAD_LETTERS`."""
        return f"{self.queue}.dlq"

    @property
    def declarations(self) -> tuple[Declaration, ...]:
        # No delivery limit: its default differs between RabbitMQ 3 and 4, and what "none" is written as does too.
        return (
            _exchange(self.exchange, "direct"),
            _exchange(DEAD_LETTERS, "direct"),
            _exchange(EVENTS, "topic"),
            _queue(self.queue, {"x-queue-type": "quorum"}),
            # Classic whatever the vhost's default is: each look into a quorum queue counts as a failed delivery,
            # and RabbitMQ 4 drops a message after 20 of them.
            _queue(self.dead_letter_queue, {"x-queue-type": "classic"}),
            _queue(RESULTS, {"x-message-ttl": RESULTS_TTL_MS}),
            _bind(self.queue, self.exchange, self.routing_key),
            _bind(self.dead_letter_queue, DEAD_LETTERS, self.dead_letter_queue),
            *(_bind(RESULTS, EVENTS, f"job.{state}.#") for state in TERMINAL),
        )


def _exchange(name: str, kind: str) -> Declaration:
    return Declaration("exchange_declare", {"exchange": name, "exchange_type": kind, "durable": True})


def _queue(name: str, arguments: Mapping[str, Any]) -> Declaration:
    return Declaration("queue_declare", {"queue": name, "durable": True, "arguments": dict(arguments)})


def _bind(queue: str, exchange: str, key: str) -> Declaration:
    return Declaration("queue_bind", {"queue": queue, "exchange": exchange, "routing_key": key})
