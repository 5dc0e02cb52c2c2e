"""A worker's one way of waiting: for the session's next event, for the supervisor's word, or for a deadline.

A VM that ends or reboots while its job is not over is a verdict, so it is raised here, once, for every step.
"""

from __future__ import annotations

import select
import time

from solstice.errors import Cause, InfraError
from solstice.host.channel import Channel, Closed
from solstice.lifecycle import JobState
from solstice.model import Outcome
from solstice.protocol import order
from solstice.protocol.session import Event, Told, decode_for_worker

_SUPERVISOR_LOST = order.Stop(
    Outcome(JobState.ERRORED, Cause.HOST_LOST, "the supervisor went away during the job"), hurry=True
)


class Stopped(Exception):
    """The supervisor wants the attempt to end, or is no more."""

    def __init__(self, stop: order.Stop) -> None:
        super().__init__(stop)
        self.stop = stop


class Watch:
    def __init__(self, supervisor: Channel, session: Channel) -> None:
        self._supervisor = supervisor
        self._session = session
        self._heard_all = False
        self._session_lost = False
        self.gone = False
        """The VM has ended."""

    def next(self, deadline: float) -> Told | None:
        """The session's next event; None when `deadline` (monotonic) passes first.

        Raises `Stopped`, and `InfraError` if the VM ended, rebooted, or the session died.
        """
        while self._wait(deadline):
            if not self._heard_all and self._supervisor.wait(0.0):
                self._hear()
            if self._session.wait(0.0):
                return self._judge(self._session_event())
        return None

    def until(self, wanted: Event, deadline: float) -> bool:
        """True as soon as `wanted` comes; False when `deadline` passes first.  Raises as `next` does."""
        while (told := self.next(deadline)) is not None:
            if told.event is wanted:
                return True
        return False

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

    def _wait(self, deadline: float) -> bool:
        channels = [self._session] if self._heard_all else [self._session, self._supervisor]
        if any(channel.wait(0.0) for channel in channels):
            return True
        return bool(select.select(channels, [], [], max(0.0, deadline - time.monotonic()))[0])

    def _hear(self) -> None:
        try:
            message = self._supervisor.receive()
        except Closed:
            self._heard_all = True  # at its end a stream is readable for ever
            raise Stopped(_SUPERVISOR_LOST) from None
        assert message is not None, "no deadline was given"  # noqa: S101 - for the type checker
        raise Stopped(order.decode_stop(message))

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
