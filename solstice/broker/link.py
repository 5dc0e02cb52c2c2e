"""One AMQP connection as awaitables: pika's callbacks become futures, every loss becomes `Lost`.

Used by broker/session.py, which owns the links; broker/connection.py decides what a loss means.  Nothing here
reconnects.  No callback of ours runs inside pika's own call stack: an exception there would abort the connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pika
from pika import frame, spec
from pika.adapters.asyncio_connection import AsyncioConnection
from pika.adapters.utils import connection_workflow

from solstice.broker.address import Address, reason

_FRAME_HEAD = struct.Struct(">BHL")
_DIAL_LIMIT = 60.0


class Lost(Exception):
    """The channel or connection is gone, or was never there; `code` is the broker's reply code, 0 if it gave none."""

    def __init__(self, why: str, code: int = 0) -> None:
        super().__init__(why)
        self.code = code


class ThreadPerCall(ThreadPoolExecutor):
    """A default executor for the loop that leaves no thread behind.

    pika and asyncio resolve names in the loop's default executor, and the usual one keeps its threads.  Here
    each call has a thread of its own, gone with the call; a name server that hangs does not hold up the exit.
    """

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()

        def call() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = fn(*args, **kwargs)
            except BaseException as error:  # noqa: BLE001  it belongs to whoever waits for the future
                future.set_exception(error)
            else:
                future.set_result(result)

        threading.Thread(target=call, name="resolver", daemon=True).start()
        return future


class _TolerantConnection(AsyncioConnection):  # type: ignore[misc]
    """Takes a message whose header table pika cannot decode (a date in the year 300000) as one without headers.

    The broker passes such tables on.  pika would abort the connection at it, get it again, and so on for ever.
    """

    def _read_frame(self) -> tuple[int, Any]:
        try:
            result: tuple[int, Any] = super()._read_frame()
        except Exception:
            kind, channel, size = _FRAME_HEAD.unpack_from(self._frame_buffer)
            if kind != spec.FRAME_HEADER:
                raise
            (body_size,) = struct.unpack_from(">Q", self._frame_buffer, _FRAME_HEAD.size + 4)
            return _FRAME_HEAD.size + size + 1, frame.Header(channel, body_size, pika.BasicProperties())
        return result


class Channel:
    """One channel; `closed` is a future that holds the reason once it is closed."""

    def __init__(self, raw: Any) -> None:
        self.raw = raw
        self.closed: asyncio.Future[Lost] = asyncio.get_running_loop().create_future()
        self._waiting: set[asyncio.Future[Any]] = set()
        raw.add_on_close_callback(self._on_close)

    async def call(self, method: str, **arguments: Any) -> Any:
        """Call a method of pika's channel that has an answer, and return that.  Raises `Lost`."""
        return await self._send(method, **arguments)

    async def cancel(self, tag: str) -> None:
        """Stop the consumer; what is already on its way is still delivered.  Raises `Lost`."""
        cancelled = self._send("basic_cancel", consumer_tag=tag)
        # pika rejects with requeue what arrives between cancel and cancel-ok, and RabbitMQ 4 dead-letters what
        # came back 20 times.  We want these messages.
        self.raw._cancelled.discard(tag)
        await cancelled

    def _send(self, method: str, **arguments: Any) -> asyncio.Future[Any]:
        if self.closed.done():
            raise self.closed.result()
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        try:
            getattr(self.raw, method)(callback=_setter(answer), **arguments)
        except pika.exceptions.AMQPError as error:
            raise Lost(reason(error)) from None
        self._waiting.add(answer)
        answer.add_done_callback(self._waiting.discard)
        return answer

    def _on_close(self, _raw: Any, error: Exception) -> None:
        lost = Lost(reason(error), getattr(error, "reply_code", 0))
        self.closed.set_result(lost)
        for answer in self._waiting:
            if not answer.done():
                answer.set_exception(lost)


class Link:
    """One open connection; `closed` is a future that holds the reason once it is closed."""

    def __init__(self, raw: Any, on_blocked: Callable[[str], None]) -> None:
        self._raw = raw
        self._loop = asyncio.get_running_loop()
        self.closed: asyncio.Future[Lost] = self._loop.create_future()
        raw.add_on_close_callback(lambda _raw, error: self.closed.set_result(Lost(reason(error))))
        self._on_blocked = on_blocked
        self._blocked = False
        raw.add_on_connection_blocked_callback(lambda _raw, method: self._block(str(method.method.reason)))
        raw.add_on_connection_unblocked_callback(lambda _raw, _method: self._block(""))

    async def channel(self) -> Channel:
        """A new channel.  Raises `Lost`."""
        opened: asyncio.Future[Any] = self._loop.create_future()
        try:
            self._raw.channel(on_open_callback=_setter(opened))
        except pika.exceptions.AMQPError as error:
            raise Lost(reason(error)) from None
        await asyncio.wait({opened, self.closed}, return_when=asyncio.FIRST_COMPLETED)
        if not opened.done():
            raise self.closed.result()
        return Channel(opened.result())

    async def close(self, timeout: float) -> None:
        """Say good-bye, wait at most `timeout` seconds for the answer, and end it."""
        with contextlib.suppress(pika.exceptions.ConnectionWrongStateError):
            self._raw.close()
        # a broker that takes no messages does not read our good-bye either, until its alarm is over
        await asyncio.wait({self.closed}, timeout=0.0 if self._blocked else timeout)
        if not self.closed.done():
            self._raw._adapter_disconnect_stream()

    def _block(self, why: str) -> None:
        self._blocked = bool(why)
        self._loop.call_soon(self._on_blocked, why)


async def dial(address: Address, on_blocked: Callable[[str], None]) -> Link:
    """Connect and log in, trying every address of the host in turn.  Raises `Lost`.

    `on_blocked` is called with the broker's reason when it stops taking publishes, with "" when it goes on.
    """
    done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    workflow = _TolerantConnection.create_connection([address.parameters], _setter(done))
    try:
        async with asyncio.timeout(_DIAL_LIMIT):
            result = await done
    except TimeoutError:
        _abandon(workflow, done)
        raise Lost(f"no connection within {_DIAL_LIMIT:.0f} s") from None
    except asyncio.CancelledError:
        _abandon(workflow, done)
        raise
    if isinstance(result, BaseException):
        raise Lost(reason(result))
    return Link(result, on_blocked)


def _abandon(workflow: Any, done: asyncio.Future[Any]) -> None:
    """Nobody wants the connection any more."""
    if done.cancelled():
        # pika's abort asserts while a log-in is under way; that one ends by pika's own stack_timeout
        with contextlib.suppress(AssertionError, connection_workflow.AMQPConnectorException):
            workflow.abort()
    elif isinstance(done.result(), AsyncioConnection):
        done.result().close()


def _setter(future: asyncio.Future[Any]) -> Callable[[Any], None]:
    """A callback that gives its argument to `future`, unless nobody waits any more."""

    def settle(result: Any) -> None:
        if not future.done():
            future.set_result(result)

    return settle
