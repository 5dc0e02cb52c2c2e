"""What the recorder says of a delivery is what a plain client did with it."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pika
import pytest

from tests.real.broker import Broker
from tests.real.recorder import Ending, Recorder
from tests.real.waiting import until

pytestmark = pytest.mark.broker

QUEUE = "recorded"


class Client:
    """A consumer of a queue that holds what it gets."""

    def __init__(self, url: str, queue: str = QUEUE) -> None:
        self._queue = queue
        self.connection = pika.BlockingConnection(pika.URLParameters(url))
        self.channel = self.connection.channel()
        self.channel.queue_declare(queue, durable=True)
        self.tags: list[int] = []
        self.channel.basic_consume(
            queue, lambda _channel, method, _properties, _body: self.tags.append(method.delivery_tag)
        )

    def put(self, count: int) -> None:
        for _ in range(count):
            self.channel.basic_publish("", self._queue, b"body", pika.BasicProperties(delivery_mode=2))

    def get(self, count: int) -> list[int]:
        """The tags of the next deliveries, which the client keeps."""
        deadline = time.monotonic() + 20
        while len(self.tags) < count:
            assert time.monotonic() < deadline, f"{len(self.tags)} of {count} deliveries within 20 s"
            self.connection.process_data_events(time_limit=1)
        tags, self.tags = self.tags[:count], self.tags[count:]
        return tags

    def flush(self) -> None:
        """Return when the broker has seen all that was sent before."""
        self.channel.queue_declare(self._queue, durable=True, passive=True)


@contextmanager
def connected(url: str, queue: str = QUEUE) -> Iterator[Client]:
    client = Client(url, queue)
    yield client
    if client.connection.is_open:
        client.connection.close()


@pytest.fixture
def recorder(vhost: str) -> Iterator[Recorder]:
    with Recorder(vhost) as recorder:
        yield recorder


@pytest.fixture
def client(recorder: Recorder) -> Iterator[Client]:
    with connected(recorder.url) as client:
        yield client


def endings(recorder: Recorder) -> list[Ending]:
    return [delivery.ending for delivery in recorder.deliveries]


def lost(recorder: Recorder, count: int) -> None:
    """Wait until so many deliveries are lost."""
    until(
        lambda: endings(recorder).count(Ending.LOST) == count,
        seconds=10,
        what="a lost delivery",
        evidence=lambda: str(recorder.deliveries),
    )


def test_the_wait_before_an_ack_is_measured(recorder: Recorder, client: Client) -> None:
    client.put(1)
    (tag,) = client.get(1)
    held_from = time.monotonic()
    client.connection.sleep(0.3)
    held = time.monotonic() - held_from
    client.channel.basic_ack(tag)
    client.flush()
    longest = recorder.longest_unacked()
    assert held <= longest < held + 0.25
    assert recorder.acked == 1
    # it stands still from now on
    client.connection.sleep(0.1)
    assert recorder.longest_unacked() == longest


def test_a_delivery_that_is_open_counts_until_now(recorder: Recorder, client: Client) -> None:
    assert recorder.longest_unacked() == 0.0
    client.put(1)
    client.get(1)
    first = recorder.longest_unacked()
    client.connection.sleep(0.1)
    assert recorder.longest_unacked() >= first + 0.1
    assert (recorder.acked, endings(recorder)) == (0, [Ending.OPEN])


def test_a_multiple_ack_ends_what_came_before_it_and_no_more(recorder: Recorder, client: Client) -> None:
    client.put(4)
    tags = client.get(4)
    client.channel.basic_ack(tags[1])
    client.channel.basic_ack(tags[2], multiple=True)
    client.flush()
    assert endings(recorder) == [Ending.ACKED, Ending.ACKED, Ending.ACKED, Ending.OPEN]
    client.channel.basic_ack(0, multiple=True)
    client.flush()
    assert recorder.acked == 4


def test_nacks_and_rejects_are_told_from_acks(recorder: Recorder, client: Client) -> None:
    client.put(4)
    tags = client.get(4)
    client.channel.basic_reject(tags[0], requeue=False)
    client.channel.basic_nack(tags[2], multiple=True, requeue=False)
    client.channel.basic_ack(tags[3])
    client.flush()
    assert endings(recorder) == [Ending.REJECTED, Ending.NACKED, Ending.NACKED, Ending.ACKED]
    assert recorder.acked == 1


def test_the_same_tag_of_another_connection_is_another_delivery(recorder: Recorder, client: Client) -> None:
    client.put(1)
    (tag,) = client.get(1)
    with connected(recorder.url, "another") as other:
        other.put(1)
        assert other.get(1) == [tag]
        other.channel.basic_ack(tag)
        other.flush()
        assert endings(recorder) == [Ending.OPEN, Ending.ACKED]
    assert [delivery.connection for delivery in recorder.deliveries] == [1, 2]


def test_a_delivery_is_lost_with_its_channel_and_grows_no_more(recorder: Recorder, client: Client) -> None:
    client.put(1)
    client.get(1)
    client.channel.close()
    assert endings(recorder) == [Ending.LOST]
    longest = recorder.longest_unacked()
    client.connection.sleep(0.1)
    assert recorder.longest_unacked() == longest


def test_a_delivery_is_lost_with_its_connection_and_comes_again(recorder: Recorder, client: Client) -> None:
    client.put(1)
    client.get(1)
    recorder.cut()
    with pytest.raises(pika.exceptions.AMQPConnectionError):
        client.connection.sleep(10)
    lost(recorder, 1)
    with connected(recorder.url) as again:
        again.channel.basic_ack(again.get(1)[0])
        again.flush()
    assert endings(recorder) == [Ending.LOST, Ending.ACKED]


def listens(recorder: Recorder) -> bool:
    """It finds out by itself that its broker is back, which takes it a moment."""
    address = urlsplit(recorder.url)
    with socket.socket() as sock:
        return sock.connect_ex((address.hostname, address.port)) == 0


def test_it_outlives_the_broker_and_refuses_while_that_is_down() -> None:
    own = Broker()
    try:
        own.start()
        with Recorder(own.url()) as recorder, connected(recorder.url) as client:
            client.put(1)
            client.get(1)
            own.kill()
            with pytest.raises(pika.exceptions.AMQPConnectionError):
                client.connection.sleep(10)
            lost(recorder, 1)
            with pytest.raises(pika.exceptions.AMQPConnectionError):
                Client(recorder.url)
            own.start()
            until(lambda: listens(recorder), seconds=10, what="the recorder", evidence=lambda: recorder.url)
            with connected(recorder.url) as again:
                again.put(1)
                again.channel.basic_ack(again.get(1)[0])
                again.flush()
                assert recorder.acked == 1
    finally:
        own.close()


def test_bytes_pass_in_both_directions_as_they_are(recorder: Recorder) -> None:
    body = bytes(range(256)) * 4096
    connection: Any = pika.BlockingConnection(pika.URLParameters(recorder.url))
    with connection:
        channel = connection.channel()
        channel.queue_declare(QUEUE)
        channel.basic_publish("", QUEUE, body)
        assert next(channel.consume(QUEUE, auto_ack=True, inactivity_timeout=10))[2] == body
