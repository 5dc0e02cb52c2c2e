"""Dead letters: looked at without a change, and sent again; on a real RabbitMQ."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pika
import pytest

from solstice.broker.deadletter import MAX_BODY, dead_letter
from solstice.broker.deadletters import Requeued, list_letters, requeue, requeue_all, show
from solstice.broker.publisher import Outgoing
from solstice.broker.topology import DEAD_LETTERS, Topology
from solstice.errors import Cause, UsageError

from .owner import JOBS, connected, operator, run, waiting

pytestmark = pytest.mark.broker

QUEUE = JOBS.dead_letter_queue
Refuse = Callable[..., None]


@pytest.fixture
def served(vhost: str) -> str:
    """A vhost where `serve` has been once."""

    async def scenario() -> None:
        async with connected(vhost):
            pass

    run(scenario)
    return vhost


@pytest.fixture
def refuse(served: str) -> Refuse:
    """Make a dead letter as the supervisor does."""

    def refuse(body: bytes, message_id: str = "", **headers: Any) -> None:
        async def scenario() -> None:
            async with connected(served) as (connection, _owner):
                copy, kept = dead_letter(body, headers, Cause.UNSCHEDULABLE, "no such label", message_id)
                await connection.publish(Outgoing(DEAD_LETTERS, QUEUE, copy, message_id or "made up", kept, True))

        run(scenario)

    return refuse


def stored(url: str, queue: str) -> list[tuple[str | None, bytes, dict[str, Any]]]:
    """What is in a queue, which is empty afterwards."""
    found: list[tuple[str | None, bytes, dict[str, Any]]] = []
    with operator(url) as channel:
        while True:
            method, properties, body = channel.basic_get(queue, auto_ack=True)
            if method is None:
                return found
            headers = properties.headers or {}
            headers.pop("x-delivery-count", None)  # a quorum queue's own
            found.append((properties.message_id, body, headers))


def bare(url: str, *bodies: bytes) -> None:
    """Dead letters from someone who gives no id."""
    with operator(url) as channel:
        channel.confirm_delivery()
        for body in bodies:
            channel.basic_publish(DEAD_LETTERS, QUEUE, body, mandatory=True)


def test_a_list_has_who_why_what_and_when(served: str, refuse: Refuse) -> None:
    body = json.dumps({"runs_on": "windows-95"}).encode()
    before = int(time.time())
    refuse(body, "id-1")
    (letter,) = list_letters(served, JOBS)
    assert (letter.id, letter.reason, letter.detail) == ("id-1", "request.unschedulable", "no such label")
    assert (letter.label, letter.size, letter.truncated) == ("windows-95", len(body), False)
    assert letter.at is not None
    assert before <= letter.at <= time.time()


@pytest.mark.parametrize("body", [b"", b"\xff", b"[]", b'{"runs_on": 7}', b"[" * 100_000, b'"x"'])
def test_a_body_that_is_no_request_has_no_label(served: str, body: bytes) -> None:
    bare(served, body)
    (letter,) = list_letters(served, JOBS)
    assert (letter.label, letter.reason, letter.size, letter.at) == ("", "", len(body), None)


def test_looking_changes_neither_number_nor_order(served: str) -> None:
    bodies = [b"%d" % number for number in range(30)]
    bare(served, *bodies)
    first = list_letters(served, JOBS)
    for _ in range(25):  # more often than RabbitMQ 4 lets a delivery fail
        show(served, JOBS, first[3].id)
    assert list_letters(served, JOBS) == first
    assert [body for _id, body, _headers in stored(served, QUEUE)] == bodies


def test_the_size_is_the_originals(served: str, refuse: Refuse) -> None:
    refuse(b"x" * (MAX_BODY + 7), "big")
    (letter,) = list_letters(served, JOBS)
    assert (letter.size, letter.truncated) == (MAX_BODY + 7, True)


def test_without_an_id_the_handle_comes_from_the_body(served: str) -> None:
    bare(served, b"a", b"b")
    letters = list_letters(served, JOBS)
    assert len({letter.id for letter in letters}) == 2
    assert show(served, JOBS, letters[1].id[:8]).body == b"b"
    assert requeue(served, JOBS, [letters[0].id]) == Requeued(1, ())
    assert stored(served, JOBS.queue) == [(None, b"a", {})]
    assert list_letters(served, JOBS) == letters[1:]


def test_one_is_shown_with_headers_and_body(served: str, refuse: Refuse) -> None:
    refuse(b"first", "id-1", trace="abc")
    refuse(b"second", "id-2")
    content = show(served, JOBS, "id-1")
    assert (content.letter.id, content.body, content.headers["trace"]) == ("id-1", b"first", "abc")
    assert content.headers["x-solstice-detail"] == "no such label"


def test_sent_again_it_is_what_it_was(served: str, refuse: Refuse) -> None:
    refuse(b'{"n": 1}', "id-1", trace="abc", retry=3)
    refuse(b'{"n": 2}', "id-2")
    assert requeue(served, JOBS, ["id-1"]) == Requeued(1, ())
    assert stored(served, JOBS.queue) == [("id-1", b'{"n": 1}', {"trace": "abc", "retry": 3})]
    assert [letter.id for letter in list_letters(served, JOBS)] == ["id-2"]


def test_all_letters_of_an_id_are_sent_again(served: str, refuse: Refuse) -> None:
    for number in range(3):
        refuse(b"%d" % number, "same")
    assert requeue(served, JOBS, ["same"]).count == 3
    assert [body for _id, body, _headers in stored(served, JOBS.queue)] == [b"0", b"1", b"2"]


def test_what_was_cut_is_not_sent_again_and_stays(served: str, refuse: Refuse) -> None:
    refuse(b"x" * (MAX_BODY + 1), "big")
    refuse(b"small", "small")
    assert requeue_all(served, JOBS) == Requeued(1, ("big",))
    assert waiting(served, JOBS.queue) == 1
    assert [letter.id for letter in list_letters(served, JOBS)] == ["big"]


def test_an_unknown_id_is_an_error_and_nothing_is_sent(served: str, refuse: Refuse) -> None:
    refuse(b"x", "id-1")
    with pytest.raises(UsageError, match=r"dead letter id-2, id-3: there is none"):
        requeue(served, JOBS, ["id-1", "id-2", "id-3"])
    with pytest.raises(UsageError, match="there is none"):
        show(served, JOBS, "")
    assert (waiting(served, JOBS.queue), waiting(served, QUEUE)) == (0, 1)


def test_a_beginning_of_several_ids_is_an_error_and_a_whole_id_is_not(served: str, refuse: Refuse) -> None:
    for name in ("id-1", "id-12", "id-2"):
        refuse(b"x", name)
    with pytest.raises(UsageError, match=r"3 ids begin so: id-1, id-12, id-2"):
        show(served, JOBS, "id")
    assert requeue(served, JOBS, ["id-1"]).count == 1


def test_a_request_without_a_queue_stays_a_dead_letter(served: str, refuse: Refuse) -> None:
    refuse(b"x", "id-1")
    with pytest.raises(UsageError, match="no queue is bound"):
        requeue_all(served, Topology(routing_key="other"))
    assert [letter.id for letter in list_letters(served, JOBS)] == ["id-1"]


def test_what_is_refused_again_is_not_sent_twice(served: str) -> None:
    """The jobs' queue is the dead letters' here: each request that is sent comes back at once."""
    bare(served, b"a", b"b")
    with operator(served) as channel:
        channel.queue_bind(QUEUE, JOBS.exchange, "loop")
    assert requeue_all(served, Topology(routing_key="loop")).count == 2
    assert waiting(served, QUEUE) == 2


def test_a_broker_never_served_is_an_error_with_the_remedy(vhost: str) -> None:
    for call in (list_letters, requeue_all):
        with pytest.raises(UsageError, match="no queue") as caught:
            call(vhost, JOBS)
        assert "start `solstice serve` once" in caught.value.remedy


def test_a_queue_of_before_without_a_type_is_taken(vhost: str) -> None:
    with operator(vhost) as channel:
        channel.queue_declare(QUEUE, durable=True)

    async def scenario() -> None:
        async with connected(vhost):
            pass

    run(scenario)


def test_a_date_that_is_none_is_shown_as_it_is(served: str) -> None:
    with operator(served) as channel:
        channel.basic_publish(DEAD_LETTERS, QUEUE, b"x", pika.BasicProperties(timestamp=1 << 62))
    (letter,) = list_letters(served, JOBS)
    assert letter.at == 1 << 62
