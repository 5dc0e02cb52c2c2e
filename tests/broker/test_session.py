"""Two connections: acks while an alarm holds, another prefetch, a drop, wishes at any moment; with a real RabbitMQ."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pika
import pytest

from solstice.broker import consumer
from solstice.broker.connection import Broker, Connection, Delivery
from solstice.broker.publisher import NotConfirmed, Outgoing
from solstice.broker.topology import EVENTS, RESULTS
from tests.real.broker import Broker as RabbitMQ

from .owner import JOBS, Owner, connected, operator, request, run, waiting
from .relay import relayed

pytestmark = pytest.mark.broker


def vhost_of(url: str) -> str:
    return urlsplit(url).path[1:]


async def unacked(broker: RabbitMQ, url: str, wanted: int) -> None:
    """Return when the broker counts so many; it counts every few seconds."""
    words = ["list_queues", "--no-table-headers", "-p", vhost_of(url), "name", "messages_unacknowledged"]
    while f"{JOBS.queue}\t{wanted}\n" not in await asyncio.to_thread(broker.control, *words):
        pass


@asynccontextmanager
async def alarm(broker: RabbitMQ) -> AsyncIterator[None]:
    await asyncio.to_thread(broker.control, "set_vm_memory_high_watermark", "0")
    try:
        yield
    finally:
        await asyncio.to_thread(broker.control, "set_vm_memory_high_watermark", "0.4")


def put(url: str, count: int) -> None:
    """Messages of someone else; returns when they are in the queue."""
    with operator(url) as channel:
        channel.confirm_delivery()
        for number in range(count):
            channel.basic_publish(
                JOBS.exchange, JOBS.routing_key, b"%d" % number, pika.BasicProperties(delivery_mode=2), mandatory=True
            )


async def taken(owner: Owner, count: int) -> list[Delivery]:
    return [await owner.deliveries.get() for _ in range(count)]


async def until(owner: Owner, connection: Connection, *, consuming: bool) -> None:
    while connection.consuming is not consuming:
        await owner.tick()


def test_the_two_connections_have_names(vhost: str, broker: RabbitMQ) -> None:
    async def scenario() -> None:
        async with connected(vhost):
            text = await asyncio.to_thread(broker.control, "list_connections", "vhost", "client_properties")
        mine = [line for line in text.splitlines() if line.startswith(vhost_of(vhost))]
        assert sorted(role for line in mine for role in ("consumer", "publisher") if f' {role}"' in line) == [
            "consumer",
            "publisher",
        ]

    run(scenario)


def test_deliveries_are_acked_while_an_alarm_keeps_a_publish_waiting(vhost: str, broker: RabbitMQ) -> None:
    async def scenario() -> None:
        async with connected(vhost) as (connection, owner):
            await asyncio.to_thread(put, vhost, 3)
            deliveries = await taken(owner, 3)
            await unacked(broker, vhost, 3)
            async with alarm(broker):
                publishing = asyncio.create_task(connection.publish(Outgoing(EVENTS, "job.failed.x", b"{}", "event")))
                assert "memory" in await owner.said(Broker.BLOCKED)
                for delivery in deliveries:
                    connection.ack(delivery)
                await unacked(broker, vhost, 0)
                assert not publishing.done()
                assert connection.state is Broker.BLOCKED
            await owner.said(Broker.UP)
            await publishing

    run(scenario)


def test_started_during_an_alarm_it_consumes_and_comes_to_be_blocked(vhost: str, broker: RabbitMQ) -> None:
    async def scenario() -> None:
        async with connected(vhost):  # declares
            pass
        await asyncio.to_thread(put, vhost, 1)
        async with alarm(broker), connected(vhost) as (connection, owner):
            connection.ack(await owner.deliveries.get())
            # the broker says so to whoever publishes, and not before
            publishing = asyncio.create_task(connection.publish(Outgoing(EVENTS, "job.failed.x", b"{}", "event")))
            await owner.said(Broker.BLOCKED)
            assert not publishing.done()
            began = time.monotonic()
            await connection.close()
            assert time.monotonic() - began < 2
            with pytest.raises(NotConfirmed):
                await publishing

    run(scenario)
    assert waiting(vhost, JOBS.queue) == 0


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 1)])
def test_another_prefetch_holds_at_once(vhost: str, before: int, after: int) -> None:
    async def scenario() -> None:
        async with connected(vhost, prefetch=before) as (connection, owner):
            await asyncio.to_thread(put, vhost, 6)
            await taken(owner, before)
            connection.set_prefetch(after)
            # what was there before stays unacked, beside the new window
            await taken(owner, after)
            await connection.publish(request(1))
            assert await asyncio.to_thread(waiting, vhost, JOBS.queue) == 3
            assert owner.deliveries.empty()

    run(scenario)


def test_another_prefetch_returns_nothing_to_the_queue(vhost: str, monkeypatch: pytest.MonkeyPatch) -> None:
    total = 400
    # a host under load may not fill a window in time; there is always enough here to fill one
    monkeypatch.setattr(consumer, "HOLD_LIMIT", 10.0)

    async def scenario() -> None:
        async with connected(vhost, prefetch=20) as (connection, owner):
            await asyncio.to_thread(put, vhost, total)
            for number in range(total):
                delivery = await owner.deliveries.get()
                assert not delivery.redelivered
                connection.ack(delivery)
                if number % 50 == 0:
                    connection.set_prefetch(5 + number % 17)

    run(scenario)
    assert waiting(vhost, JOBS.queue) == 0


@pytest.mark.parametrize("paused", [True, False])
def test_a_drop_gives_everything_back_and_the_connection_comes_again(
    vhost: str, broker: RabbitMQ, paused: bool
) -> None:
    async def scenario() -> None:
        async with connected(vhost) as (connection, owner):
            await asyncio.to_thread(put, vhost, 4)
            before = await taken(owner, 4)
            if paused:
                connection.pause()
                await until(owner, connection, consuming=False)
            connection.drop()
            connection.ack(before[0])  # too late, and no harm
            assert "given back" in await owner.said(Broker.DOWN)
            await owner.said(Broker.UP)
            if paused:
                assert not connection.consuming
                assert await asyncio.to_thread(waiting, vhost, JOBS.queue) == 4
                connection.resume()
            again = await taken(owner, 4)
            assert [delivery.body for delivery in again] == [delivery.body for delivery in before]
            assert {delivery.redelivered for delivery in again} == {True}

    run(scenario)


def test_a_drop_while_nothing_is_connected_does_nothing(vhost: str) -> None:
    async def scenario() -> None:
        async with relayed(vhost, listening=False) as relay:
            owner = Owner()
            connection = owner.connection(relay.url)
            connection.drop()
            connection.start()
            await owner.said(Broker.DOWN)
            connection.drop()
            await connection.close()

    run(scenario)


@pytest.mark.parametrize("delay", [0.0, 0.02, 0.1, 0.19, 0.22, 0.4])
@pytest.mark.parametrize("wanted", [True, False])
def test_the_last_wish_holds_whenever_it_came(vhost: str, wanted: bool, delay: float) -> None:
    async def scenario() -> None:
        async with connected(vhost) as (connection, owner):
            for wish in (wanted, not wanted, not wanted, wanted):
                await asyncio.sleep(delay)
                (connection.resume if wish else connection.pause)()
            await until(owner, connection, consuming=wanted)
            await asyncio.sleep(0.3)  # longer than what is under way in a stop
            assert connection.consuming is wanted
            await connection.publish(request(1))
            if wanted:
                connection.ack(await owner.deliveries.get())
            assert owner.deliveries.empty()

    run(scenario)
    assert waiting(vhost, JOBS.queue) == (0 if wanted else 1)


def test_paused_before_it_is_connected_it_takes_nothing(vhost: str) -> None:
    async def scenario() -> None:
        async with connected(vhost):
            pass
        await asyncio.to_thread(put, vhost, 1)
        for wishes in ("before", "during"):
            owner = Owner()
            connection = owner.connection(vhost)
            if wishes == "before":
                connection.pause()
            connection.start()
            await asyncio.sleep(0)
            connection.pause()
            await owner.said(Broker.UP)
            assert not connection.consuming
            assert await asyncio.to_thread(waiting, vhost, JOBS.queue) == 1
            connection.resume()
            connection.ack(await owner.deliveries.get())
            await connection.close()
            await asyncio.to_thread(put, vhost, 1)

    run(scenario)


@pytest.mark.parametrize("role", ["consumer", "publisher"])
def test_if_one_of_the_two_is_lost_both_are_made_anew(vhost: str, broker: RabbitMQ, role: str) -> None:
    async def scenario() -> None:
        async with connected(vhost) as (connection, owner):
            await asyncio.to_thread(put, vhost, 1)
            before = await owner.deliveries.get()
            rows = await asyncio.to_thread(
                broker.control, "list_connections", "--no-table-headers", "vhost", "pid", "client_properties"
            )
            mine = [row.split("\t") for row in rows.splitlines() if row.startswith(vhost_of(vhost))]
            (pid,) = [row[1] for row in mine if f' {role}"' in row[2]]
            await asyncio.to_thread(broker.control, "close_connection", pid, "by the tests")
            assert "by the tests" in await owner.said(Broker.DOWN)
            await owner.said(Broker.UP)
            again = await owner.deliveries.get()
            assert (again.redelivered, again.generation) == (True, before.generation + 1)
            connection.ack(again)
            await connection.publish(request(2))

    run(scenario)


@asynccontextmanager
async def a_user(broker: RabbitMQ, url: str, *permissions: str) -> AsyncIterator[tuple[str, str]]:
    """A user of its own with these permissions (configure, write, read): its name, and the URL with it."""
    name = f"user-{secrets.token_hex(4)}"
    await asyncio.to_thread(broker.control, "add_user", name, "s3cret")
    try:
        await asyncio.to_thread(broker.control, "set_permissions", "-p", vhost_of(url), name, *permissions)
        yield name, f"amqp://{name}:s3cret@{url.split('@')[1]}"
    finally:
        await asyncio.to_thread(broker.control, "delete_user", name)


def test_a_password_that_is_changed_while_it_runs_ends_it_with_the_remedy(
    vhost: str, broker: RabbitMQ, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    async def scenario() -> None:
        async with (
            a_user(broker, vhost, ".*", ".*", ".*") as (name, url),
            relayed(url) as relay,
            connected(relay.url) as (connection, owner),
        ):
            await asyncio.to_thread(broker.control, "change_password", name, "other")
            await connection.publish(request(1))  # an open connection is not ended by that
            relay.cut()
            await owner.said(Broker.DOWN)
            error = await owner.fatal
            assert "refused the credential" in str(error)
            assert "AMQP_URL" in error.remedy
            assert connection.state is Broker.DOWN
            assert "s3cret" not in str(error) + caplog.text

    run(scenario)


@pytest.mark.parametrize("permissions", [("", ".*", ".*"), (".*", ".*", "^solstice[.](jobs|dlx|events)$")])
def test_a_user_who_may_not_declare_or_read_is_refused(
    vhost: str, broker: RabbitMQ, permissions: tuple[str, str, str]
) -> None:
    async def scenario() -> None:
        async with connected(vhost):
            pass
        async with a_user(broker, vhost, *permissions) as (name, url):
            owner = Owner()
            connection = owner.connection(url)
            connection.start()
            error = await owner.fatal
            await connection.close()
            assert f"refused for user '{name}'" in error.why
            assert "configure, write and read" in error.remedy

    run(scenario)


def test_a_user_who_may_not_publish_is_refused(vhost: str, broker: RabbitMQ) -> None:
    async def scenario() -> None:
        async with (
            a_user(broker, vhost, ".*", "solstice[.].*v1.*", ".*") as (_name, url),
            connected(url) as (connection, owner),
        ):
            with pytest.raises(NotConfirmed, match="refused"):
                await connection.publish(Outgoing(EVENTS, "job.failed.x", b"{}", "event"))
            assert "configure, write and read" in (await owner.fatal).remedy

    run(scenario)


def test_a_deleted_exchange_is_declared_anew(vhost: str) -> None:
    async def scenario() -> None:
        async with connected(vhost) as (connection, owner):
            with operator(vhost) as channel:
                channel.exchange_delete(EVENTS)
            event = Outgoing(EVENTS, "job.failed.x", b"{}", "event", mandatory=True)
            with pytest.raises(NotConfirmed, match="no exchange"):
                await connection.publish(event)
            while await _refused(connection, event):
                await owner.tick()
            assert owner.states.empty()

    run(scenario)
    assert waiting(vhost, RESULTS) == 1


async def _refused(connection: Connection, event: Outgoing) -> bool:
    try:
        await connection.publish(event)
    except NotConfirmed:
        return True
    return False


def test_closing_takes_both_connections_away(vhost: str, broker: RabbitMQ) -> None:
    async def scenario() -> None:
        before = len(list(Path("/proc/self/fd").iterdir()))
        async with connected(vhost):
            pass
        assert len(list(Path("/proc/self/fd").iterdir())) == before

    run(scenario)
    rows = broker.control("list_connections", "--no-table-headers", "vhost")
    assert vhost_of(vhost) not in rows.split()
