"""What `serve` has and a single `run` has not: the broker on one side, operators on the other.

Owns the connection, the outbox, the valve and the control socket.
"""

from __future__ import annotations

from collections.abc import Callable

from solstice.broker.address import Tls
from solstice.broker.connection import Broker, Connection, Delivery
from solstice.broker.topology import Topology
from solstice.config.settings import Settings
from solstice.errors import UsageError
from solstice.host.places import Places
from solstice.supervisor.control import Control
from solstice.supervisor.dispatch import Dispatch
from solstice.supervisor.intake import Intake
from solstice.supervisor.outbox import Outbox
from solstice.supervisor.retention import Retention
from solstice.supervisor.steering import Steering
from solstice.supervisor.store import Store
from solstice.supervisor.valve import Valve
from solstice.supervisor.view import View
from solstice.supervisor.why import Why

OUTBOX_TIMEOUT = 5.0


class Doors:
    """`on_change` is called when the broker came or went, `on_fatal` if it will never have us."""

    def __init__(
        self,
        settings: Settings,
        places: Places,
        dispatch: Dispatch,
        store: Store,
        intake: Intake,
        on_change: Callable[[], None],
        on_fatal: Callable[[UsageError], None],
    ) -> None:
        """Raises `UsageError` if AMQP_URL or what belongs to it is wrong."""
        self._intake = intake
        self._on_change = on_change
        self._topology = Topology(settings.amqp_exchange, settings.amqp_queue, settings.amqp_routing_key)
        self._connection = Connection(
            settings.amqp_url,
            self._topology,
            settings.amqp_prefetch,
            on_delivery=self._on_delivery,
            on_state=self._on_broker,
            on_fatal=on_fatal,
            tls=Tls(settings.amqp_ca_file, settings.amqp_cert_file, settings.amqp_key_file),
        )
        self._outbox = Outbox(store, self._connection, dispatch.owner)
        pending = dispatch.scheduler.pending
        self._valve = Valve(self._connection, intake, lambda: len(pending), lambda: dispatch.pending_limit)
        self._view = View(dispatch, store, places, self._valve)
        self.steering = Steering(dispatch, self._valve, self._view, places.paused)
        self.retention = Retention(store, dispatch.forkserver, dispatch.owner, places.jobs, lambda: settings.retention)
        commands = {
            "prune": self.retention.prune,
            "status": self._view.status,
            "jobs": self._view.jobs,
            "job": self._view.job,
            "why": Why(dispatch, store, intake, self._view).why,
            "cancel": self.steering.cancel,
            "pause": self.steering.pause,
            "resume": self.steering.resume,
            "drain": self.steering.drain,
            "images": self.steering.images,
        }
        self._control = Control(places.control, commands)

    async def open(self) -> None:
        """Begin to answer and to take jobs."""
        await self._control.start()
        self._outbox.start()
        self._valve.look()
        self._connection.start()

    async def close(self) -> None:
        await self._connection.close()
        await self._control.close()

    def look(self) -> None:
        """Something changed: there may be events to publish, room for jobs, a drain that is done."""
        self._outbox.wake()
        self._valve.look()
        self.steering.look()

    def reload(self, settings: Settings) -> None:
        self._connection.set_prefetch(settings.amqp_prefetch)
        self.look()

    def take_nothing(self) -> None:
        """No new jobs from now on."""
        self._valve.close()

    async def publish_the_rest(self) -> None:
        """Publish what waits, if that is soon possible; the rest is published at the next start."""
        await self._outbox.close(OUTBOX_TIMEOUT)

    @property
    def broker(self) -> Broker:
        return self._connection.state

    def _on_delivery(self, delivery: Delivery) -> None:
        self._intake.deliver(self._connection, self._topology, delivery)

    def _on_broker(self, state: Broker, why: str) -> None:
        self._view.broker, self._view.broker_why = state, why
        self._on_change()
