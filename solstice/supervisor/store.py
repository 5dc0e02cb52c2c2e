"""The supervisor's end of the store process: questions as awaitables, never a wait in the loop.

A question whose answer was lost with a crashed store is asked again of the next one: every operation of the store may
be repeated (protocol/store.py).  `change` is for what must not be lost: it tries again until the database takes it.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from typing import Any

from solstice.errors import SolsticeError, UsageError
from solstice.protocol.lines import Message
from solstice.protocol.store import ErrorKind
from solstice.supervisor.child import Child
from solstice.supervisor.streams import Stream

FIRST_DELAY = 0.5
MAX_DELAY = 10.0
_CONFIGURE = 0

log = logging.getLogger(__name__)


class StoreRefused(SolsticeError):
    """The store answered that it did not do what was asked."""

    def __init__(self, op: str, why: str, kind: ErrorKind) -> None:
        super().__init__(f"the store refused {op}", why)
        self.kind = kind


class Store:
    def __init__(self, url: str) -> None:
        self._url = url
        self._ids = itertools.count(_CONFIGURE + 1)
        self._asked: dict[int, tuple[Message, asyncio.Future[Any]]] = {}
        self._child = Child("solstice.store", self._on_start, self._on_message)

    async def open(self) -> None:
        """Start the process.  Raises `UsageError` if it cannot use the database."""
        configured = self._register(_CONFIGURE, {"op": "configure", "url": self._url})
        self._child.start()
        try:
            await configured
        except StoreRefused as refused:
            raise UsageError("the database cannot be used", refused.why, "see --database-url and --state-dir") from None

    async def close(self) -> None:
        await self._child.close()

    async def ask(self, op: str, **fields: Any) -> Any:
        """The result of one operation.  Raises `StoreRefused`."""
        number = next(self._ids)
        answer = self._register(number, {"op": op, **fields})
        if self._child.stream is not None:
            self._child.stream.send(self._asked[number][0])
        return await answer

    async def change(self, op: str, **fields: Any) -> Any:
        """As `ask`, but a database that fails is tried again until it does not.  Raises `StoreRefused` otherwise."""
        delay = FIRST_DELAY
        while True:
            try:
                return await self.ask(op, **fields)
            except StoreRefused as refused:
                if refused.kind is not ErrorKind.DATABASE:
                    raise
                if delay == FIRST_DELAY:
                    log.error("the database does not take changes; trying again: %s", refused.why)
            await asyncio.sleep(delay)
            delay = min(delay * 2, MAX_DELAY)

    def _register(self, number: int, message: Message) -> asyncio.Future[Any]:
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._asked[number] = ({**message, "id": number}, answer)
        return answer

    def _on_start(self, stream: Stream) -> None:
        if _CONFIGURE not in self._asked:
            stream.send({"op": "configure", "id": _CONFIGURE, "url": self._url})
        for number in sorted(self._asked):
            stream.send(self._asked[number][0])

    def _on_message(self, message: Message) -> None:
        asked = self._asked.pop(message["id"], None)
        if asked is None or asked[1].done():
            return  # the second answer to `configure` of a store that was started again, or nobody waits any more
        question, answer = asked
        if message["ok"]:
            answer.set_result(message["result"])
        else:
            answer.set_exception(StoreRefused(question["op"], message["error"], ErrorKind(message["kind"])))
