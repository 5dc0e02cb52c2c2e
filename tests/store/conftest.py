"""The database in this process, for what needs no process of its own: the same code below the channel."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from solstice.protocol.lines import Message, decode, encode
from solstice.store.engine import open_database
from solstice.store.group import answer

Ask = Callable[[Message], Any]


@pytest.fixture
def ask(tmp_path: Path) -> Iterator[Ask]:
    """Asks one message of a fresh database, as if over the channel; the whole reply."""
    engine = open_database(f"sqlite:///{tmp_path / 'test.db'}")

    def ask_one(message: Message) -> Any:
        (reply,) = answer(engine, [decode(encode({"id": 7, **message}))])
        assert reply["id"] == 7
        return decode(encode(reply))

    yield ask_one
    engine.dispose()
