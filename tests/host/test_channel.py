import faulthandler
import socket
import time
from collections.abc import Iterator

import pytest

from solstice.host.channel import Channel, Closed
from solstice.protocol.lines import encode


@pytest.fixture
def pair() -> Iterator[tuple[Channel, Channel]]:
    ours, theirs = (Channel(sock) for sock in socket.socketpair())
    yield ours, theirs
    ours.close()
    theirs.close()


@pytest.fixture(autouse=True)
def _no_wait_without_end() -> Iterator[None]:
    faulthandler.dump_traceback_later(20.0, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


def test_pending_gives_what_is_there_and_waits_for_nothing(pair: tuple[Channel, Channel]) -> None:
    """It once waited for a second message after it had read a first one."""
    ours, theirs = pair
    assert ours.pending() == []
    theirs.send({"n": 1})
    assert ours.pending() == [{"n": 1}]
    theirs.send({"n": 2})
    theirs.send({"n": 3})
    assert ours.pending() == [{"n": 2}, {"n": 3}]


def test_pending_gives_the_rest_after_a_receive(pair: tuple[Channel, Channel]) -> None:
    ours, theirs = pair
    theirs.send({"n": 1})
    theirs.send({"n": 2})
    assert ours.receive() == {"n": 1}
    assert ours.pending() == [{"n": 2}]


def test_the_last_messages_come_before_the_end(pair: tuple[Channel, Channel]) -> None:
    ours, theirs = pair
    theirs.send({"n": 1})
    theirs.close()
    assert ours.pending() == [{"n": 1}]
    with pytest.raises(Closed):
        ours.pending()


def test_receive_gives_up_at_its_deadline(pair: tuple[Channel, Channel]) -> None:
    assert pair[0].receive(time.monotonic() + 0.05) is None


def test_an_offer_is_taken_as_far_as_there_is_room(pair: tuple[Channel, Channel]) -> None:
    ours, theirs = pair
    line = encode({"said": "x" * (1 << 20)})
    taken = ours.offer(line)
    assert 0 < taken < len(line)
    assert ours.offer(line[taken:]) == 0
    while taken < len(line):
        assert theirs.pending() == []
        taken += ours.offer(line[taken:])
    assert theirs.receive() == {"said": "x" * (1 << 20)}


def test_an_offer_to_nobody_is_refused(pair: tuple[Channel, Channel]) -> None:
    pair[1].close()
    with pytest.raises(Closed):
        pair[0].offer(b"x")
