"""What is forgotten, in which order, and what never is."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.engine import Engine

from solstice.protocol import store
from solstice.protocol.lines import Message
from solstice.store import retention, schema
from tests.store.conftest import Ask
from tests.store.process import accept, finish, new_job, start

HERE = "aaaaaaaaaaaa"


def result(ask: Ask, message: Message) -> Any:
    reply = ask(message)
    assert reply["ok"], reply
    return reply["result"]


def ended(ask: Ask, at: float, host: str | None = None, phase: str = "done") -> str:
    """A job that ended at `at`, with an attempt in `phase` and an event."""
    job = new_job()
    moved = {"op": "phase", "job": job, "attempt": 1, "at": at}
    result(ask, {**accept(job), "host": host})
    result(ask, start(job))
    result(ask, {**moved, "phase": "cleaning", "number": 1})
    result(ask, finish(job, at=at))
    if phase == "done":
        result(ask, {**moved, "phase": "done"})
    return job


def candidates(ask: Ask, **fields: Any) -> list[str]:
    return [job["id"] for job in result(ask, {"op": "prune", "older_than": 100.0, **fields})["jobs"]]


def rows(engine: Engine, name: str) -> int:
    with engine.begin() as db:
        return int(db.execute(select(func.count()).select_from(schema.metadata.tables[name])).scalar_one())


def known(ask: Ask) -> set[str]:
    return {job["id"] for job in result(ask, {"op": "jobs"})["jobs"]}


def test_nothing_is_forgotten_before_its_logs_are_gone(ask: Ask, engine: Engine) -> None:
    old, older, recent = ended(ask, 99.0), ended(ask, 50.0), ended(ask, 100.0)
    before = rows(engine, "outbox")
    assert candidates(ask) == candidates(ask) == [old, older]
    assert known(ask) == {old, older, recent}
    assert candidates(ask, removed=[old]) == [older]
    assert known(ask) == {older, recent}
    assert candidates(ask, removed=[old, older]) == []
    assert (rows(engine, "jobs"), rows(engine, "attempts"), rows(engine, "events")) == (1, 1, 1)
    assert rows(engine, "outbox") == before, "a result that waits to be published is published"


def test_what_has_not_ended_long_ago_is_kept_whatever_the_caller_says(ask: Ask) -> None:
    waiting, running, recent = new_job(), new_job(), ended(ask, 200.0)
    result(ask, accept(waiting))
    result(ask, accept(running))
    result(ask, start(running))
    unclean = ended(ask, 1.0, phase="cleaning")
    kept = {waiting, running, recent, unclean}
    assert candidates(ask, removed=[*kept, "nonsense"]) == []
    assert known(ask) == kept


def test_batches_go_on_after_the_last_one_whether_its_logs_could_be_removed_or_not(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "PRUNE_BATCH", 2)
    jobs = [ended(ask, 1.0) for _ in range(5)]
    after, seen = 0, []
    while page := result(ask, {"op": "prune", "older_than": 100.0, "after": after})["jobs"]:
        assert len(page) <= 2
        seen += [job["id"] for job in page]
        after = page[-1]["seq"]
    assert seen == jobs
    assert known(ask) == set(jobs)


def test_logs_of_another_host_are_not_here(ask: Ask) -> None:
    mine, nobodys, theirs = ended(ask, 1.0, HERE), ended(ask, 1.0), ended(ask, 1.0, "bbbbbbbbbbbb")
    assert candidates(ask, host=HERE) == [mine]
    assert candidates(ask, host=HERE, removed=[mine, nobodys, theirs]) == []
    assert known(ask) == {nobodys, theirs}


def test_more_at_once_than_comes_in_a_batch_is_refused(ask: Ask) -> None:
    reply = ask({"op": "prune", "older_than": 1.0, "removed": ["x"] * (store.PRUNE_BATCH + 1)})
    assert reply["kind"] == "bad_request"
