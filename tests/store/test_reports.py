"""What workers reported, who they are, when a job may be tried again, whose it is; and the images."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.engine import Engine

from solstice.protocol import store
from solstice.protocol.lines import Message
from solstice.store.schema import events
from tests.store.conftest import Ask
from tests.store.process import accept, finish, new_job, release, running_store, start


def result(ask: Ask, message: Message) -> Any:
    reply = ask(message)
    assert reply["ok"], reply
    return reply["result"]


def phase(job: str, name: str, **more: Any) -> Message:
    return {"op": "phase", "job": job, "attempt": 1, "phase": name, "at": 3.0, **more}


def report(job: str, number: int, kind: str = "step", **more: Any) -> Message:
    return {
        "op": "report",
        "job": job,
        "attempt": 1,
        "number": number,
        "kind": kind,
        "report": {"n": 1},
        "at": 4.0,
        **more,
    }


@pytest.fixture
def job(ask: Ask) -> str:
    """A job that runs."""
    job = new_job()
    result(ask, accept(job))
    result(ask, start(job))
    return job


def open_attempt(ask: Ask) -> Any:
    (attempt,) = result(ask, {"op": "open"})["attempts"]
    return attempt


def kept(engine: Engine) -> list[tuple[Any, ...]]:
    columns = events.c.number, events.c.kind, events.c.report, events.c.host_at, events.c.guest_at
    with engine.begin() as db:
        return [tuple(row) for row in db.execute(select(*columns).order_by(events.c.number))]


def test_what_a_worker_reported_is_kept_with_both_clocks(ask: Ask, engine: Engine, job: str) -> None:
    result(ask, phase(job, "booting", number=1))
    result(ask, report(job, 2, "hello", guest_at=77.5))
    result(ask, {**finish(job, "failed", cause="user.step_failed", at=9.0), "number": 3, "guest_at": 78.0})
    first, second, third = kept(engine)
    assert first == (1, "phase", '{"phase": "booting"}', 3.0, None)
    assert second == (2, "hello", '{"n": 1}', 4.0, 77.5)
    assert (third[0], third[1], third[3], third[4]) == (3, "finish", 9.0, 78.0)
    assert json.loads(third[2]) == {
        "state": "failed",
        "cause": "user.step_failed",
        "detail": "",
        "exit_code": None,
        "steps": [{"name": "build", "exit_code": 0, "seconds": 1.5}],
    }
    assert open_attempt(ask)["reported"] == 3


def test_a_number_that_is_known_changes_nothing(ask: Ask, engine: Engine, job: str) -> None:
    result(ask, report(job, 5))
    before = kept(engine), result(ask, {"op": "job", "job": job})
    for again in (report(job, 5, "other"), report(job, 4), phase(job, "booting", number=5)):
        assert result(ask, again) == {"repeated": True}
    assert result(ask, {**finish(job), "number": 5}) == {"repeated": True}
    assert result(ask, {**release(job), "number": 2}) == {"repeated": True}
    assert (kept(engine), result(ask, {"op": "job", "job": job})) == before


def test_a_report_of_what_is_known_already_is_kept_as_reported(ask: Ask, engine: Engine, job: str) -> None:
    result(ask, phase(job, "cleaning"))
    assert result(ask, phase(job, "cleaning", number=1)) == {"repeated": True}
    assert open_attempt(ask)["reported"] == 1
    assert [row[1] for row in kept(engine)] == ["phase"]


def test_a_report_of_a_move_that_is_refused_is_not_kept(ask: Ask, engine: Engine, job: str) -> None:
    assert ask(phase(job, "held", number=1))["kind"] == "illegal_move"
    assert kept(engine) == []
    assert open_attempt(ask)["reported"] == 0


@pytest.mark.parametrize("message", [report(new_job(), 0), {**finish(new_job(), attempt=0), "number": 1}])
def test_reports_and_their_attempts_count_from_1(ask: Ask, message: Message) -> None:
    assert "count from 1" in ask(message)["error"]


def test_report_that_is_too_long_is_refused(ask: Ask, job: str) -> None:
    assert "longer than" in ask({**report(job, 1), "report": {"text": "x" * store.MAX_REPORT}})["error"]


def test_worker_of_an_attempt_is_known_to_the_next_supervisor(ask: Ask, job: str) -> None:
    assert (open_attempt(ask)["pid"], open_attempt(ask)["worker_started"]) == (None, None)
    for pid in (4711, 4712):
        message = {"op": "worker", "job": job, "attempt": 1, "pid": pid, "started": 123456.25}
        assert result(ask, message) == result(ask, message) == {}
    attempt = open_attempt(ask)
    assert (attempt["pid"], attempt["worker_started"], attempt["started_at"]) == (4712, 123456.25, 2.0)
    assert ask({"op": "worker", "job": job, "attempt": 2, "pid": 1, "started": 1.0})["kind"] == "unknown_job"


def test_a_job_says_how_often_it_was_tried_and_when_it_may_be_again(ask: Ask, job: str) -> None:
    result(ask, {**release(job), "not_before": 60.0})
    (waiting,) = result(ask, {"op": "open"})["jobs"]
    assert (waiting["counted"], waiting["next_attempt"], waiting["not_before"]) == (1, 2, 60.0)
    result(ask, start(job, 2))
    (running,) = result(ask, {"op": "open"})["jobs"]
    assert (running["counted"], running["next_attempt"], running["not_before"]) == (2, 3, None)


def test_each_host_is_shown_its_own_jobs_and_publishes_its_own_events(ask: Ask) -> None:
    for host in ("aaaaaaaaaaaa", "bbbbbbbbbbbb"):
        job = new_job()
        result(ask, {**accept(job), "host": host})
        assert result(ask, {**accept(job), "host": "cccccccccccc"})["new"] is False
        result(ask, start(job))
        rejected = {
            "op": "reject",
            "request_id": None,
            "cause": "request.invalid",
            "detail": host,
            "at": 1.0,
            "occasion": host,
        }
        result(ask, {**rejected, "host": host})

        opened = result(ask, {"op": "open", "host": host})
        assert [row["id"] for row in opened["jobs"]] == [row["job"] for row in opened["attempts"]] == [job]
        told = [json.loads(row["body"]) for row in result(ask, {"op": "outbox", "host": host})["events"]]
        assert [body["state"] for body in told] == ["accepted", "running", "rejected"]
        assert {body.get("job_id") for body in told} == {job, None}
    assert len(result(ask, {"op": "open"})["jobs"]) == 2
    assert len(result(ask, {"op": "outbox"})["events"]) == 6
    assert result(ask, {"op": "open", "host": "cccccccccccc"}) == {"jobs": [], "attempts": [], "more": False}


def test_what_was_stored_without_a_host_belongs_to_the_first_one_that_comes(ask: Ask, job: str) -> None:
    first, second = "aaaaaaaaaaaa", "bbbbbbbbbbbb"
    assert result(ask, {"op": "open", "host": first})["jobs"] == []
    for host in (first, second, first):
        result(ask, {"op": "host", "owner": host, "name": "a name", "at": 1.0})
    opened = result(ask, {"op": "open", "host": first})
    assert [row["id"] for row in opened["jobs"]] == [row["job"] for row in opened["attempts"]] == [job]
    assert len(result(ask, {"op": "outbox", "host": first})["events"]) == 2
    assert result(ask, {"op": "open", "host": second}) == {"jobs": [], "attempts": [], "more": False}
    assert result(ask, {"op": "outbox", "host": second})["events"] == []


def test_image_that_is_ready_again_replaces_what_was(ask: Ask) -> None:
    image = {"op": "image", "name": "debian", "format": "qcow2", "path": "/images/debian.qcow2", "at": 1.0}
    result(ask, image)
    result(ask, {**image, "format": "raw", "at": 2.0, "digest": "sha256:00"})
    result(ask, {**image, "name": "alpine"})
    assert [
        (row["name"], row["format"], row["digest"], row["ready_at"]) for row in result(ask, {"op": "images"})["images"]
    ] == [
        ("alpine", "qcow2", None, 1.0),
        ("debian", "raw", "sha256:00", 2.0),
    ]
    assert ask({**image, "format": "vmdk"})["kind"] == "bad_request"


def test_refused_report_does_not_undo_its_neighbours(database_url: str) -> None:
    job = new_job()
    with running_store(database_url) as process:
        process.stop()
        process.write([accept(job), start(job), report(job, 1), phase(job, "held", number=2), report(job, 3)])
        process.go_on()
        assert [process.read()["ok"] for _ in range(5)] == [True, True, True, False, True]
        (attempt,) = process.result("open")["attempts"]
        assert attempt["reported"] == 3
