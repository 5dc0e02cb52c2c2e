"""A worker's one way of waiting: for the session's next event, for a supervisor and its word, or for a deadline.

A VM that ends or reboots while its job is not over is a verdict, so it is raised here, once, for every step.
"""

from __future__ import annotations

import select
import time

from solstice.errors import Cause, InfraError
from solstice.host.channel import Channel, Closed
from solstice.protocol import order
from solstice.protocol.session import Event, Told, decode_for_worker
from solstice.worker.link import Link


class Stopped(Exception):
    """The supervisor wants the attempt to end."""

    def __init__(self, stop: order.Stop) -> None:
        super().__init__(stop)
        self.stop = stop


class Watch:
    def __init__(self, link: Link, session: Channel) -> None:
        self._link = link
        self._session = session
        self._session_lost = False
        self.gone = False
        """The VM has ended."""

    def next(self, deadline: float) -> Told | None:
        """The session's next event; None when `deadline` (monotonic) passes first.

        Raises `Stopped`, and `InfraError` if the VM ended, rebooted, or the session died.
        """
        while True:
            if (stop := self._link.serve()) is not None:
                raise Stopped(stop)
            if self._session.wait(0.0):
                return self._judge(self._session_event())
            if time.monotonic() >= deadline:
                return None
            self._wait(deadline)

    def until(self, wanted: Event, deadline: float) -> Told | None:
        """What was told as soon as `wanted` comes; None when `deadline` passes first.  Raises as `next` does."""
        while (told := self.next(deadline)) is not None:
            if told.event is wanted:
                return told
        return None

    def until_gone(self, deadline: float) -> bool:
        """True as soon as the VM has ended or nobody can tell any more; False at `deadline`.  Raises `Stopped`."""
        while not self.gone:
            try:
                if self.next(deadline) is None:
                    return False
            except InfraError:
                if self._session_lost:
                    return True
        return True

    def _wait(self, deadline: float) -> None:
        """Until there may be something to do, and until `deadline` at most."""
        until = min(deadline, self._link.sign_due)
        readers, writers = [self._session, *self._link.readers], self._link.writers
        select.select(readers, writers, [], max(0.0, until - time.monotonic()))

    def _session_event(self) -> Told:
        try:
            message = self._session.receive()
        except Closed:
            self._session_lost = True
            raise InfraError(Cause.WORKER_CRASHED, "the session process ended by itself") from None
        assert message is not None, "no deadline was given"  # noqa: S101 - for the type checker
        return decode_for_worker(message)

    def _judge(self, told: Told) -> Told:
        if told.event is Event.GONE:
            self.gone = True
            raise InfraError(Cause.VM_LOST, "the VM closed its console")
        if told.event is Event.REBOOTED:
            raise InfraError(Cause.GUEST_REBOOTED, "the runner started a second time")
        return told
