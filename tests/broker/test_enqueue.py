"""The command line's blocking client against a real RabbitMQ."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from solstice.broker.enqueue import Event, ResultListener, publish_request
from solstice.broker.topology import EVENTS, Topology
from solstice.errors import UsageError

from .owner import JOBS, connected, operator, run, with_password

pytestmark = pytest.mark.broker

DOCUMENT = {"schema_version": 1, "request_id": "0" * 8, "runs_on": "x", "steps": []}


@pytest.fixture
def served(vhost: str) -> str:
    """A vhost where `serve` has been once."""

    async def scenario() -> None:
        async with connected(vhost):
            pass

    run(scenario)
    return vhost


def publish_event(url: str, **event: Any) -> None:
    with operator(url) as channel:
        channel.basic_publish(EVENTS, f"job.{event['state']}.x", json.dumps(event).encode())


def soon() -> float:
    return time.monotonic() + 20.0


def test_a_request_is_in_the_queue_with_its_id(served: str) -> None:
    publish_request(served, JOBS, DOCUMENT)
    with operator(served) as channel:
        _method, properties, body = channel.basic_get(JOBS.queue, auto_ack=True)
    assert json.loads(body) == DOCUMENT
    assert (properties.message_id, properties.delivery_mode) == ("00000000", 2)


def test_a_request_without_a_queue_is_an_error_with_the_remedy(served: str) -> None:
    with pytest.raises(UsageError, match="no queue is bound") as caught:
        publish_request(served, Topology(routing_key="other"), DOCUMENT)
    assert "start `solstice serve` once" in caught.value.remedy


def test_a_request_to_a_broker_never_served_is_an_error_with_the_remedy(vhost: str) -> None:
    with pytest.raises(UsageError, match=r"no exchange 'solstice\.jobs'") as caught:
        publish_request(vhost, JOBS, DOCUMENT)
    assert "start `solstice serve` once" in caught.value.remedy


def test_a_refused_credential_is_an_error_without_the_password(vhost: str) -> None:
    with pytest.raises(UsageError, match="refused the credential") as caught:
        publish_request(with_password(vhost, "s3cret"), JOBS, DOCUMENT)
    assert "s3cret" not in str(caught.value)


def test_an_unreachable_broker_is_an_error_that_names_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    with pytest.raises(UsageError, match=f"amqp://ci@127.0.0.1:{port}/%2F cannot be reached: Connection refused"):
        publish_request(f"amqp://ci:s3cret@127.0.0.1:{port}/%2F", JOBS, DOCUMENT)


def test_the_listener_yields_one_jobs_events_up_to_the_terminal_one(served: str) -> None:
    heard: list[Event] = []
    with ResultListener(served) as listener:
        with operator(served) as channel:
            channel.basic_publish(EVENTS, "job.succeeded.x", b"not json")
        publish_event(served, job_id="other", state="succeeded")
        publish_event(served, job_id="mine", state="running")
        publish_event(served, job_id="mine", state="failed")
        publish_event(served, job_id="mine", state="succeeded")
        last = listener.wait("mine", soon(), heard.append)
    assert [event["state"] for event in heard] == ["running", "failed"]
    assert last == {"job_id": "mine", "state": "failed"}


def test_the_listener_gives_up_at_its_deadline(served: str) -> None:
    with ResultListener(served) as listener:
        began = time.monotonic()
        assert listener.wait("mine", began + 0.1, lambda _event: None) is None
        assert time.monotonic() - began < 5


def test_the_listeners_queue_is_gone_with_it(served: str) -> None:
    with ResultListener(served) as listener:
        queue = listener._queue
    with operator(served) as channel, pytest.raises(Exception, match="no queue"):
        channel.queue_declare(queue, passive=True)


def test_listening_to_a_broker_never_served_is_an_error_with_the_remedy(vhost: str) -> None:
    with pytest.raises(UsageError, match=r"no exchange 'solstice\.events'") as caught, ResultListener(vhost):
        pass
    assert "start `solstice serve` once" in caught.value.remedy


@contextmanager
def silent_server() -> Iterator[int]:
    """Accepts connections, and closes each at the first byte."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    client, _address = server.accept()
                except OSError:
                    return
                client.recv(1)
                client.close()

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_something_that_is_no_broker_is_an_error() -> None:
    with silent_server() as port, pytest.raises(UsageError, match="ended during the log-in"):
        publish_request(f"amqp://ci:s3cret@127.0.0.1:{port}/%2F", JOBS, DOCUMENT)
