"""The database in this process, for what needs no process of its own: the same code below the channel."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy.engine import Engine

from solstice.protocol.lines import Message, decode, encode
from solstice.store.engine import opened
from solstice.store.group import answer

Ask = Callable[[Message], Any]


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """A fresh database."""
    with opened(database_url) as engine:
        yield engine


@pytest.fixture
def ask(engine: Engine) -> Ask:
    """Asks one message of the fresh database, as if over the channel; the whole reply."""

    def ask_one(message: Message) -> Any:
        (reply,) = answer(engine, [decode(encode({"id": 7, **message}))])
        assert reply["id"] == 7
        return decode(encode(reply))

    return ask_one
