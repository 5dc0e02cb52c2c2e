"""What an active attempt remembers of why it is to end."""

from __future__ import annotations

from solstice.errors import Cause
from solstice.model import AttemptId
from solstice.protocol.order import Stop
from solstice.supervisor.endings import cancelled, errored
from solstice.supervisor.jobs import Active
from tests.supervisor.jobs import job

HOST_STOPS = Stop(errored(Cause.HOST_STOPPING, "the supervisor was asked to stop"))
CANCEL = Stop(cancelled("by an operator"))


def ended_by(*stops: Stop) -> Stop:
    one = job()
    active = Active(one, AttemptId("0" * 12, one.id, 1), since=0.0)
    for stop in stops:
        active.stop(stop)
    assert active.stopping is not None
    return active.stopping


def test_a_cancelled_job_stays_cancelled_when_its_host_stops_before_or_after() -> None:
    for stops in ((CANCEL, HOST_STOPS), (HOST_STOPS, CANCEL)):
        assert ended_by(*stops).outcome.cause is Cause.CANCELLED


def test_a_later_stop_may_hurry() -> None:
    assert ended_by(CANCEL, Stop(HOST_STOPS.outcome, hurry=True)) == Stop(CANCEL.outcome, hurry=True)
