"""A worker that follows a job: what it reports of the steps, and when.  A real link; the session is a socket."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from solstice.host.channel import Channel
from solstice.host.journal import read
from solstice.lifecycle import JobState
from solstice.model import JobRequest, Step
from solstice.protocol import attach, reports
from solstice.protocol.session import CHECKOUT, Event, Told, encode
from solstice.worker.job import Job
from solstice.worker.link import Link
from solstice.worker.watch import Watch

REQUEST = JobRequest("7f3a91c2-0000-4000-8000-000000000000", "label", (Step("one", "true"), Step("two", "true")))


@pytest.fixture
def link(reachable: Path) -> Iterator[Link]:
    supervisor, pipe = map(Channel, socket.socketpair())
    with Link(reachable, pipe) as link:
        yield link
    supervisor.close()
    pipe.close()


def test_each_beginning_and_end_of_a_step_is_reported_with_the_guests_time(link: Link, reachable: Path) -> None:
    session, worker = map(Channel, socket.socketpair())
    for told in [
        Told(Event.STEP_STARTED, CHECKOUT),
        Told(Event.STEP_BEGAN, CHECKOUT, guest_at=1000),
        Told(Event.STEP_ENDED, CHECKOUT, 0, 1003),
        # this one does not say when it began, nor when it ended
        Told(Event.STEP_STARTED, 0),
        Told(Event.STEP_ENDED, 0, 0),
        Told(Event.STEP_STARTED, 1),
        Told(Event.STEP_BEGAN, 1, guest_at=5),
        Told(Event.STEP_ENDED, 1, 3, 4),
        Told(Event.FINISHED),
    ]:
        session.send(encode(told))
    outcome = Job(REQUEST, 60.0, link.send).follow(Watch(link, worker))
    session.close()
    worker.close()
    assert (outcome.state, outcome.exit_code) == (JobState.FAILED, 3)
    assert [reports.decode(message)[0] for message in read(reachable / attach.JOURNAL)] == [
        reports.Step(CHECKOUT, "checkout", None, 1000),
        reports.Step(CHECKOUT, "checkout", 0, 1003),
        reports.Step(0, "one", 0, None),
        reports.Step(1, "two", None, 5),
        reports.Step(1, "two", 3, 4),
    ]
