"""One transaction for all that waits; savepoints only for a group in which a message failed."""

from __future__ import annotations

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from solstice.protocol.lines import Message
from solstice.store.group import answer
from tests.store.process import accept, finish, new_job, start


@pytest.fixture
def said(engine: Engine) -> list[str]:
    """What the database is told about transactions from here on."""
    said: list[str] = []
    for name in ("begin", "savepoint", "rollback", "commit"):
        event.listen(engine, name, lambda *_, name=name: said.append(name))
    return said


def numbered(*messages: Message) -> list[Message]:
    return [{**message, "id": number} for number, message in enumerate(messages)]


def test_group_without_a_fault_needs_no_savepoint(engine: Engine, said: list[str]) -> None:
    job = new_job()
    replies = answer(engine, numbered(accept(job), start(job), finish(job)))
    assert [reply["ok"] for reply in replies] == [True, True, True]
    assert said == ["begin", "commit"]


def test_group_with_a_fault_is_done_again_and_only_the_fault_is_taken_back(engine: Engine, said: list[str]) -> None:
    job, other = new_job(), new_job()
    replies = answer(engine, numbered(accept(job), finish(job), start(job), accept(other)))
    assert [reply.get("kind", "ok") for reply in replies] == ["ok", "illegal_move", "ok", "ok"]
    # what the first pass did is not there for the second to find
    assert [reply["result"].get("new") for reply in (replies[0], replies[3])] == [True, True]
    assert said == ["begin", "rollback", "begin", *["savepoint"] * 4, "commit"]
