"""The supervisor's end of the store process: questions as awaitables, never a wait in the loop.

A question whose answer was lost with a crashed store is asked again of the next one: every operation of the store may
be repeated (protocol/store.py).  `change` is for what must not be lost: it tries again until the database takes it.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from dataclasses import dataclass
from typing import Any

from solstice.errors import SolsticeError, UsageError
from solstice.protocol.lines import Message
from solstice.protocol.store import ErrorKind
from solstice.supervisor.child import Child
from solstice.supervisor.streams import Stream

FIRST_DELAY = 0.5
MAX_DELAY = 10.0
OPEN_TIMEOUT = 30.0
LATE = 2.0
_CONFIGURE = 0

log = logging.getLogger(__name__)


class StoreRefused(SolsticeError):
    """The store answered that it did not do what was asked."""

    def __init__(self, op: str, why: str, kind: ErrorKind) -> None:
        super().__init__(f"the store refused {op}", why)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class _Question:
    message: Message
    answer: asyncio.Future[Any]
    at: float


class Store:
    """`host` is the owner id: of one host, one store at a time carries out what is asked."""

    def __init__(self, url: str, host: str) -> None:
        self._url = url
        self._host = host
        self._ids = itertools.count(_CONFIGURE + 1)
        self._asked: dict[int, _Question] = {}
        self._first: asyncio.Future[Message]
        self._opening: asyncio.Timeout | None = None
        self._configured = False
        self._upgrading = False
        self._trouble = ""
        self._refusal = ""
        self._child = Child("solstice.store", self._on_start, self._on_message, self._on_end)

    async def open(self) -> None:
        """Start the process.  Raises `UsageError` if it cannot use the database."""
        self._first = asyncio.get_running_loop().create_future()
        self._child.start()
        try:
            async with asyncio.timeout(OPEN_TIMEOUT) as self._opening:
                answer = await self._first
        except TimeoutError:
            why = f"the store process did not answer within {OPEN_TIMEOUT:.0f} s"
            raise UsageError("the database cannot be used", why, "read what it said above") from None
        finally:
            self._opening = None
        if not answer["ok"]:
            raise UsageError("the database cannot be used", answer["error"], "see --database-url and --state-dir")

    async def close(self) -> None:
        await self._child.close()

    @property
    def state(self) -> str:
        """How it is, in words for people."""
        if self._upgrading:
            return "upgrading its tables, which may take long"
        if not self._configured:
            return f"not answering: {self._refusal or 'its process is being started again'}"
        silent = time.monotonic() - next(iter(self._asked.values())).at if self._asked else 0.0
        if silent > LATE:
            return f"not answering for {silent:.0f} s"
        return self._trouble or "ok"

    async def ask(self, op: str, **fields: Any) -> Any:
        """The result of one operation.  Raises `StoreRefused`."""
        number = next(self._ids)
        answer = self._register(number, {"op": op, **fields})
        if self._child.stream is not None and self._configured:
            self._child.stream.send(self._asked[number].message)
        try:
            return await answer
        finally:
            self._asked.pop(number, None)  # also if nobody waits any more

    async def change(self, op: str, **fields: Any) -> Any:
        """As `ask`, but a database that fails is tried again until it does not.  Raises `StoreRefused` otherwise."""
        delay = FIRST_DELAY
        while True:
            try:
                result = await self.ask(op, **fields)
                self._trouble = ""
                return result
            except StoreRefused as refused:
                if refused.kind is not ErrorKind.DATABASE:
                    raise
                self._trouble = f"does not take changes: {refused.why}"
                if delay == FIRST_DELAY:
                    log.error("the database does not take changes; trying again: %s", refused.why)
            await asyncio.sleep(delay)
            delay = min(delay * 2, MAX_DELAY)

    def _on_end(self) -> None:
        self._configured = False
        self._set_upgrading(False)

    def _register(self, number: int, message: Message) -> asyncio.Future[Any]:
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._asked[number] = _Question({**message, "id": number}, answer, time.monotonic())
        return answer

    def _on_start(self, stream: Stream) -> None:
        stream.send({"op": "configure", "id": _CONFIGURE, "url": self._url, "host": self._host})

    def _set_upgrading(self, upgrading: bool) -> None:
        """Whoever waits for the first answer waits as long as an upgrade takes; the store has a limit of its own."""
        if upgrading:
            log.warning("the tables of the database are being upgraded, which may take long if they are large")
        if self._opening is not None and not self._opening.expired() and upgrading != self._upgrading:
            until = None if upgrading else asyncio.get_running_loop().time() + OPEN_TIMEOUT
            self._opening.reschedule(until)
        self._upgrading = upgrading

    def _on_configured(self, message: Message) -> None:
        """A store that cannot open the database is ended, and `Child` starts the next one, until one can."""
        self._set_upgrading(False)
        self._configured = message["ok"]
        stream = self._child.stream
        assert stream is not None, "it has just answered"  # noqa: S101
        if self._configured:
            for number in sorted(self._asked):
                stream.send(self._asked[number].message)
        else:
            if self._refusal != message["error"]:
                log.error("the store cannot open the database, and tries again: %s", message["error"])
            stream.abort()
        self._refusal = "" if self._configured else message["error"]
        if not self._first.done():
            self._first.set_result(message)

    def _on_message(self, message: Message) -> None:
        if message["id"] == _CONFIGURE and "upgrading" in message:
            self._set_upgrading(True)
            return
        if message["id"] == _CONFIGURE:
            self._on_configured(message)
            return
        question = self._asked.get(message["id"])
        if question is None or question.answer.done():
            return  # nobody waits any more
        answer = question.answer
        if message["ok"]:
            answer.set_result(message["result"])
        else:
            answer.set_exception(StoreRefused(question.message["op"], message["error"], ErrorKind(message["kind"])))
