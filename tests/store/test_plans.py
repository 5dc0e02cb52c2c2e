"""How the database finds what a supervisor asks for again and again: by an index, however many jobs there were."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from solstice.protocol.lines import Message
from solstice.protocol.store import REQUESTS
from solstice.store.engine import opened
from solstice.store.group import answer
from tests.store.process import HOST, accept, finish, new_job, release, start

JOB = new_job()
PHASE: Message = {"op": "phase", "job": JOB, "attempt": 2, "phase": "booting", "at": 3.0, "number": 1}
# In an order in which each is carried out.
REGULAR: list[Message] = [
    {"op": "host", "owner": HOST, "name": "here", "at": 1.0},
    {**accept(JOB), "host": HOST},
    start(JOB),
    release(JOB),
    start(JOB, attempt=2),
    {"op": "worker", "job": JOB, "attempt": 2, "pid": 7, "started": 1.0},
    PHASE,
    {"op": "report", "job": JOB, "attempt": 2, "number": 2, "kind": "step", "report": {}, "at": 3.0, "guest_at": 1.0},
    {"op": "open", "host": HOST},
    {"op": "job", "job": JOB},
    {"op": "job", "job": JOB[:4]},
    {**finish(JOB, attempt=2), "number": 3},
    {"op": "reject", "request_id": None, "cause": "request.invalid", "detail": "", "occasion": "o", "at": 1.0},
    {"op": "jobs", "state": "succeeded"},
    {"op": "outbox", "host": HOST},
    {"op": "sent", "message_ids": ["one", "other"]},
    {"op": "durations"},
    {"op": "known", "jobs": [JOB, new_job()]},
    {"op": "image", "name": "i", "format": "raw", "path": "/i", "at": 1.0},
    {"op": "prune", "older_than": 100.0, "host": HOST},
    {"op": "prune", "older_than": 100.0, "host": HOST, "after": 1, "removed": [JOB]},
]
# Of the jobs, all and their number are for people; there is one image for each line of the image map.
RARE = {"counts", "images"}
GROWING = ("jobs", "attempts", "events", "outbox")


@pytest.fixture
def engine() -> Iterator[Engine]:
    with opened("sqlite://") as engine:
        yield engine


def statements(engine: Engine) -> list[tuple[str, Any]]:
    """Every statement of the regular operations, with its parameters."""
    found: list[tuple[str, Any]] = []

    def note(_c: object, _cursor: object, statement: str, parameters: Any, _context: object, many: bool) -> None:
        found.append((statement, parameters[0] if many else parameters))

    event.listen(engine, "before_cursor_execute", note)
    for message in REGULAR:
        (reply,) = answer(engine, [{**message, "id": 1}])
        assert reply["ok"], (message, reply)
    event.remove(engine, "before_cursor_execute", note)
    return [(statement, parameters) for statement, parameters in found if not statement.startswith("BEGIN")]


def plan(engine: Engine, statement: str, parameters: Any) -> list[str]:
    with engine.begin() as db:
        return [row[3] for row in db.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)]


def test_every_operation_is_looked_at() -> None:
    assert {message["op"] for message in REGULAR} == REQUESTS.keys() - RARE


def test_no_regular_statement_reads_a_growing_table_from_its_beginning(engine: Engine) -> None:
    plans = {statement: plan(engine, statement, parameters) for statement, parameters in statements(engine)}
    steps = [step for steps in plans.values() for step in steps]
    assert any(step.startswith("SEARCH jobs") for step in steps), "plans are what they were"
    scans = [f"{step}: {statement}" for statement, steps in plans.items() for step in steps if _is_scan(step)]
    assert scans == []


def _is_scan(step: str) -> bool:
    return step.startswith(tuple(f"SCAN {table}" for table in GROWING))


def test_a_scan_would_be_found(engine: Engine) -> None:
    assert [_is_scan(step) for step in plan(engine, "SELECT * FROM jobs WHERE label = ?", ("x",))] == [True]
