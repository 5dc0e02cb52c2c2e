"""The tests' RabbitMQ keeps what is durable over a crash, and ends without a trace."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pika
import pytest

from tests.real import guests, leftovers
from tests.real.broker import Broker
from tests.real.root import HOST, Root

pytestmark = pytest.mark.broker


@pytest.fixture(params=["host", "debian13"])
def own(request: pytest.FixtureRequest) -> Iterator[Broker]:
    """One that the test may stop: this host's, and the one in its own root."""
    server = Broker(Root(guests.rabbitmq4_root()) if request.param == "debian13" else HOST)
    server.start()
    yield server
    server.close()


def declare(channel: Any, *, passive: bool) -> None:
    channel.queue_declare("kept", durable=True, passive=passive, arguments={"x-queue-type": "quorum"})


def put(url: str) -> None:
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        declare(channel, passive=False)
        channel.confirm_delivery()
        channel.basic_publish("", "kept", b"message", pika.BasicProperties(delivery_mode=2), mandatory=True)


def get(url: str) -> bytes | None:
    """The first message of the queue; None if there is none within 20 s.  (After a restart it counts 0 for a while.)"""
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        declare(channel, passive=True)
        body: bytes | None = next(channel.consume("kept", inactivity_timeout=20))[2]
        return body


def test_a_virtual_host_is_empty_and_apart_from_the_others(broker: Broker, vhost: str) -> None:
    put(vhost)
    with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="NOT_FOUND"):
        get(broker.new_vhost())


def test_the_default_user_of_rabbitmq_is_unknown(broker: Broker) -> None:
    assert broker.control("list_users", "--no-table-headers").split("\t")[0] == broker.user


def test_a_quorum_queue_survives_a_stop_and_a_kill_and_nothing_survives_close(own: Broker) -> None:
    url = own.new_vhost()
    put(url)
    # in this order: killed right after the queue was declared, RabbitMQ 3.10 came back with the queue but without a
    # leader for it, and answered INTERNAL_ERROR after a minute
    own.stop()
    own.start()
    own.kill()
    own.start()
    assert get(url) == b"message"
    mine = os.fsencode(own.control("eval", "node().").strip().strip("'"))
    assert [pid for pid in leftovers.live() if mine in leftovers.environment(pid)] != []
    own.close()
    assert [pid for pid in leftovers.live() if mine in leftovers.environment(pid)] == []


def test_rabbitmq_4_runs_in_a_root_of_its_own_and_leaves_no_mount(broker4: Broker) -> None:
    assert broker4.control("version").startswith("4.0.")
    url = broker4.new_vhost()
    put(url)
    assert get(url) == b"message"
    assert str(guests.cache_folder()) not in Path("/proc/self/mountinfo").read_text()
