"""The supervisor's connection against a real RabbitMQ."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import struct
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pika
import pytest

from solstice.broker.connection import FIRST_DELAY, MAX_DELAY, Broker, Delivery, back_off
from solstice.broker.publisher import NotConfirmed, NotRouted, Outgoing
from solstice.broker.topology import DEAD_LETTERS, EVENTS, RESULTS, Topology
from solstice.errors import UsageError
from tests.real.broker import Broker as RabbitMQ

from .owner import JOBS, Owner, connected, operator, request, run, waiting, with_password
from .relay import relayed

BASIC_CANCEL = struct.pack(">HH", 60, 30)  # class and method, as they stand in the frame

pytestmark = pytest.mark.broker


def test_a_published_message_is_delivered_and_gone_when_acked(vhost: str) -> None:
    async def scenario() -> None:
        async with connected(vhost) as (connection, owner):
            await connection.publish(request(1, headers={"k": "v"}))
            delivery = await owner.deliveries.get()
            connection.ack(delivery)
        assert (delivery.body, delivery.message_id, delivery.headers) == (b'{"n": 1}', "id-1", {"k": "v"})
        assert not delivery.redelivered

    run(scenario)
    assert waiting(vhost, JOBS.queue) == 0


def test_messages_are_persistent_json(vhost: str) -> None:
    async def scenario() -> None:
        async with connected(vhost) as (connection, _owner):
            await connection.publish(Outgoing(EVENTS, "job.succeeded.ubuntu-22.04", b"{}", "event-1"))

    run(scenario)
    with operator(vhost) as channel:
        _method, properties, _body = channel.basic_get(RESULTS, auto_ack=True)
    assert (properties.delivery_mode, properties.content_type) == (2, "application/json")


def test_no_more_than_the_prefetch_is_delivered_without_an_ack(vhost: str) -> None:
    async def scenario() -> None:
        async with connected(vhost, prefetch=2) as (connection, owner):
            for number in range(1, 4):
                await connection.publish(request(number))
            first = await owner.deliveries.get()
            await owner.deliveries.get()
            # the confirm of a later publish shows that the broker has had its chance to deliver the third
            await connection.publish(request(4))
            assert owner.deliveries.empty()
            connection.ack(first)
            assert (await owner.deliveries.get()).message_id == "id-3"

    run(scenario)


def test_a_mandatory_message_without_a_queue_is_refused(vhost: str) -> None:
    async def scenario() -> None:
        async with connected(vhost) as (connection, _owner):
            with pytest.raises(NotRouted, match=r"solstice\.jobs for nowhere"):
                await connection.publish(Outgoing(JOBS.exchange, "nowhere", b"{}", "id", mandatory=True))

    run(scenario)


def test_an_event_without_a_listener_is_no_error(vhost: str) -> None:
    async def scenario() -> None:
        async with connected(vhost) as (connection, _owner):
            await connection.publish(Outgoing(EVENTS, "job.running.x", b"{}", "id"))

    run(scenario)


def test_many_publishes_at_once_are_all_confirmed(vhost: str) -> None:
    async def scenario() -> None:
        async with connected(vhost) as (connection, _owner):
            await asyncio.gather(
                *(connection.publish(Outgoing(EVENTS, "job.failed.x", b"{}", str(n))) for n in range(500))
            )

    run(scenario)
    assert waiting(vhost, RESULTS) == 500


def test_a_publish_to_a_missing_exchange_leaves_the_consumer_alone(vhost: str) -> None:
    async def scenario() -> None:
        async with connected(vhost) as (connection, owner):
            await connection.publish(request(1))
            before = await owner.deliveries.get()
            with pytest.raises(NotConfirmed, match="no exchange 'nowhere'"):
                await connection.publish(Outgoing("nowhere", "", b"{}", "id"))
            await _published(connection, request(2))
            after = await owner.deliveries.get()
            connection.ack(before)
            connection.ack(after)
            assert (before.generation, after.generation) == (1, 1)
            assert owner.states.empty()

    run(scenario)
    assert waiting(vhost, JOBS.queue) == 0


async def _published(connection: Any, message: Outgoing) -> None:
    """Publish as an outbox does: again until confirmed."""
    while True:
        try:
            await connection.publish(message)
        except NotConfirmed:
            await asyncio.sleep(0.02)
        else:
            return


def test_after_a_loss_it_reconnects_and_an_unacked_delivery_comes_again(
    vhost: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def scenario() -> None:
        async with relayed(vhost) as relay, connected(relay.url) as (connection, owner):
            await connection.publish(request(1))
            first = await owner.deliveries.get()
            relay.cut()
            await owner.said(Broker.DOWN)
            await owner.said(Broker.UP)
            again = await owner.deliveries.get()
            assert again.redelivered
            assert again.message_id == first.message_id
            connection.ack(first)
            assert "cannot be acked" in caplog.text
            assert connection.state is Broker.UP
            connection.ack(again)
            await connection.publish(request(2))
            assert (await owner.deliveries.get()).message_id == "id-2"

    run(scenario)
    assert waiting(vhost, JOBS.queue) == 1  # the second was not acked


def test_a_restart_of_the_broker_is_survived(vhost: str, broker: RabbitMQ) -> None:
    async def scenario() -> None:
        async with connected(vhost) as (connection, owner):
            await connection.publish(request(1))
            await owner.deliveries.get()
            await asyncio.to_thread(broker.stop)
            await asyncio.to_thread(broker.start)
            await owner.said(Broker.DOWN)
            await owner.said(Broker.UP)
            again = await owner.deliveries.get()
            assert again.redelivered
            connection.ack(again)
            await _published(connection, request(2))
            assert (await owner.deliveries.get()).message_id == "id-2"
            assert owner.states.empty()

    run(scenario)


@pytest.mark.parametrize(
    ("word", "setting", "alarming", "usual"),
    [
        ("memory", "set_vm_memory_high_watermark", "0", "0.4"),
        ("disk", "set_disk_free_limit", "109951162777600", "50000000"),
    ],
)
def test_an_alarm_is_said_and_the_publish_waits_for_its_end(
    vhost: str, broker: RabbitMQ, word: str, setting: str, alarming: str, usual: str
) -> None:
    async def scenario() -> None:
        async with connected(vhost) as (connection, owner):
            await asyncio.to_thread(broker.control, setting, alarming)
            try:
                publishing = asyncio.create_task(connection.publish(request(1)))
                assert word in await owner.said(Broker.BLOCKED)
                assert not publishing.done()
            finally:
                await asyncio.to_thread(broker.control, setting, usual)
            await owner.said(Broker.UP)
            await publishing

    run(scenario)


def test_a_publish_that_was_not_confirmed_before_the_loss_says_so(vhost: str) -> None:
    async def scenario() -> None:
        async with relayed(vhost) as relay, connected(relay.url) as (connection, owner):
            relay.to_broker.clear()
            publishing = asyncio.create_task(connection.publish(request(1)))
            await asyncio.sleep(0)
            relay.cut()
            with pytest.raises(NotConfirmed):
                await publishing
            await owner.said(Broker.DOWN)
            with pytest.raises(NotConfirmed, match="no connection to amqp://"):
                await connection.publish(request(2))

    run(scenario)


def test_unreachable_at_start_is_said_once_and_waited_out(vhost: str, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with relayed(vhost, listening=False) as relay:
            owner = Owner()
            connection = owner.connection(relay.url)
            connection.start()
            assert "refused" in await owner.said(Broker.DOWN)
            await asyncio.sleep(1.0)  # several attempts
            await relay.listen()
            await owner.said(Broker.UP)
            await connection.publish(request(1))
            await owner.deliveries.get()
            await connection.close()

    run(scenario)
    assert len(caplog.records) == 1


def test_a_wrong_password_is_fatal_and_stands_in_no_text(vhost: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def scenario() -> None:
        owner = Owner()
        connection = owner.connection(with_password(vhost, "s3cret"))
        connection.start()
        error = await owner.fatal
        await connection.close()
        assert isinstance(error, UsageError)
        assert "refused the credential" in str(error)
        assert "AMQP_URL" in error.remedy
        assert "s3cret" not in str(error) + caplog.text

    run(scenario)


def test_a_queue_with_other_arguments_is_fatal_with_the_remedy(vhost: str) -> None:
    with operator(vhost) as channel:
        channel.queue_declare(JOBS.queue, durable=True)

    async def scenario() -> None:
        owner = Owner()
        connection = owner.connection(vhost)
        connection.start()
        error = await owner.fatal
        await connection.close()
        assert "queue solstice.jobs.v1 stands with other arguments" in error.what
        assert "AMQP_QUEUE" in error.remedy

    run(scenario)


def test_a_deleted_queue_is_declared_anew(vhost: str) -> None:
    async def scenario() -> None:
        async with connected(vhost) as (connection, owner):
            with operator(vhost) as channel:
                channel.queue_delete(JOBS.queue)
            await owner.said(Broker.DOWN)
            await owner.said(Broker.UP)
            await connection.publish(request(1, mandatory=True))
            await owner.deliveries.get()

    run(scenario)


def test_paused_it_takes_nothing_and_resumed_it_goes_on(vhost: str) -> None:
    async def scenario() -> None:
        async with connected(vhost) as (connection, owner):
            connection.pause()
            await _consumers(vhost, 0)
            await connection.publish(request(1))
            assert await asyncio.to_thread(waiting, vhost, JOBS.queue) == 1
            assert owner.deliveries.empty()
            connection.resume()
            connection.ack(await owner.deliveries.get())

    run(scenario)


def test_paused_it_stays_paused_over_a_loss(vhost: str) -> None:
    async def scenario() -> None:
        async with relayed(vhost) as relay, connected(relay.url) as (connection, owner):
            connection.pause()
            relay.cut()
            await owner.said(Broker.DOWN)
            await owner.said(Broker.UP)
            await _published(connection, request(1))
            assert await asyncio.to_thread(waiting, vhost, JOBS.queue) == 1
            connection.resume()
            await owner.deliveries.get()

    run(scenario)


async def _consumers(url: str, wanted: int) -> None:
    def count() -> int:
        with operator(url) as channel:
            consumers: int = channel.queue_declare(JOBS.queue, passive=True).method.consumer_count
            return consumers

    while await asyncio.to_thread(count) != wanted:
        await asyncio.sleep(0.02)


def test_what_is_on_its_way_while_pausing_is_delivered_and_not_returned(vhost: str) -> None:
    """pika would reject it, the broker put it back, and RabbitMQ 4 dead-letters what came back 20 times."""
    total = 600

    async def scenario() -> None:
        async with connected(vhost, prefetch=20) as (connection, owner):
            connection.pause()
            await _consumers(vhost, 0)
            await asyncio.gather(*(connection.publish(request(n)) for n in range(total)))
            connection.resume()
            seen: list[Delivery] = []
            while len(seen) < total:
                seen.append(await owner.deliveries.get())
                connection.ack(seen[-1])
                if len(seen) % 7 == 0:
                    connection.pause()
                    await asyncio.sleep(0)
                    await asyncio.sleep(0)
                    connection.resume()
            assert not [delivery for delivery in seen if delivery.redelivered]
            assert len({delivery.message_id for delivery in seen}) == total

    run(scenario)


def test_what_arrives_between_cancel_and_its_answer_is_delivered(vhost: str) -> None:
    """pika by itself would reject it."""

    async def scenario() -> None:
        async with relayed(vhost) as relay, connected(relay.url) as (connection, owner):
            relay.from_broker.clear()
            with operator(vhost) as channel:
                channel.confirm_delivery()
                channel.basic_publish(JOBS.exchange, JOBS.routing_key, b"on its way")
            while await asyncio.to_thread(waiting, vhost, JOBS.queue):
                await asyncio.sleep(0.02)
            connection.pause()
            while BASIC_CANCEL not in relay.sent:
                await asyncio.sleep(0.02)
            relay.from_broker.set()
            delivery = await owner.deliveries.get()
            assert (delivery.body, delivery.redelivered) == (b"on its way", False)
            connection.ack(delivery)

    run(scenario)
    assert waiting(vhost, JOBS.queue) == 0


class _FarFuture(pika.BasicProperties):  # type: ignore[misc]
    """A header with a date beyond what Python knows; pika itself cannot write one."""

    def encode(self) -> list[bytes]:
        self.headers = {"when": datetime(2000, 1, 1, tzinfo=UTC)}
        written = struct.pack(">Q", int(self.headers["when"].timestamp()))
        return [b"".join(super().encode()).replace(written, b"\x7f" + b"\xff" * 7)]


def test_a_header_that_pika_cannot_decode_does_not_cut_the_connection(vhost: str) -> None:
    async def scenario() -> None:
        async with connected(vhost) as (connection, owner):
            with operator(vhost) as channel:
                channel.basic_publish(JOBS.exchange, JOBS.routing_key, b"poison", _FarFuture())
            delivery = await owner.deliveries.get()
            connection.ack(delivery)
            assert (delivery.body, delivery.headers) == (b"poison", {})
            assert owner.states.empty()

    run(scenario)


def test_closing_does_not_wait_for_a_broker_that_hangs(vhost: str) -> None:
    async def scenario() -> None:
        async with relayed(vhost) as relay, connected(relay.url) as (connection, _owner):
            relay.to_broker.clear()
            began = time.monotonic()
            await connection.close(timeout=0.2)
            assert time.monotonic() - began < 2

    run(scenario)


def test_closing_during_the_login_is_at_once(vhost: str) -> None:
    async def scenario() -> None:
        async with relayed(vhost) as relay:
            relay.to_broker.clear()
            connection = Owner().connection(relay.url)
            connection.start()
            await asyncio.sleep(0.2)
            began = time.monotonic()
            await connection.close()
            assert time.monotonic() - began < 1

    run(scenario)


def test_results_wait_in_their_queue_and_other_events_do_not(vhost: str) -> None:
    async def scenario() -> None:
        async with connected(vhost) as (connection, _owner):
            for state in ("running", "accepted", "succeeded", "timed_out", "rejected"):
                await connection.publish(Outgoing(EVENTS, f"job.{state}.ubuntu-22.04", b"{}", state))

    run(scenario)
    assert waiting(vhost, RESULTS) == 3


def test_another_queue_has_dead_letters_of_its_own(vhost: str) -> None:
    topology = Topology(exchange="e", queue="q", routing_key="k")

    async def scenario() -> None:
        async with connected(vhost, topology) as (connection, _owner):
            await connection.publish(Outgoing(DEAD_LETTERS, topology.dead_letter_queue, b"{}", "id", mandatory=True))

    run(scenario)
    assert waiting(vhost, "q.dlq") == 1


_ONE_THREAD = """
import asyncio, os, sys
from solstice.broker.connection import Connection
from solstice.broker.topology import Topology

async def main():
    up = asyncio.Event()
    connection = Connection(sys.argv[1], Topology(), 1, print, lambda *_: up.set(), print)
    connection.start()
    await up.wait()
    tasks = os.listdir("/proc/self/task")
    for _ in range(100):  # the resolver's thread ends just after its answer
        if len(tasks) == 1:
            break
        await asyncio.sleep(0.01)
        tasks = os.listdir("/proc/self/task")
    print("threads:", len(tasks), connection.state)
    await connection.close()

asyncio.run(main())
"""


def test_connected_by_host_name_the_process_has_one_thread(vhost: str) -> None:
    url = vhost.replace("@127.0.0.1:", "@localhost:")
    assert "@localhost:" in url
    environment = {**os.environ, "PYTHONPATH": os.fspath(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", _ONE_THREAD, url],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
        env=environment,
    )
    assert done.stdout == "threads: 1 up\n"


def test_tries_come_ever_later_never_more_than_half_a_minute_apart_and_not_in_step() -> None:
    one, other = (list(itertools.islice(back_off(), 12)) for _ in range(2))
    for number, delay in enumerate(one):
        longest = min(FIRST_DELAY * 2**number, MAX_DELAY)
        assert longest / 2 <= delay <= longest <= 30.0
    assert one != other
