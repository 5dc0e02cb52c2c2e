"""Each operation: what it changes, what it tells the world, what it refuses.  Real databases, in this process."""

from __future__ import annotations

import json
from typing import Any

import pytest

from solstice.errors import Cause
from solstice.protocol import store_fields
from solstice.protocol.lines import MAX_LINE, Message, encode
from solstice.protocol.store import MAX_REQUEST, Refused, parse
from tests.store.conftest import Ask
from tests.store.process import accept, finish, new_job, release, start

DIGEST = "sha256:" + "0f" * 32
TIMINGS = {"preparing": 2.0, "booting": 3.0, "running": 4.0, "collecting": 5.0, "cleaning": 6.0, "done": 10.0}


def result(ask: Ask, message: Message) -> Any:
    reply = ask(message)
    assert reply["ok"], reply
    return reply["result"]


def phase(job: str, name: str, attempt: int = 1, at: float = 3.0) -> Message:
    return {"op": "phase", "job": job, "attempt": attempt, "phase": name, "at": at}


def events(ask: Ask) -> list[dict[str, Any]]:
    return [json.loads(row["body"]) for row in result(ask, {"op": "outbox", "limit": 1000})["events"]]


def everything(ask: Ask, job: str) -> object:
    return result(ask, {"op": "job", "job": job}), result(ask, {"op": "outbox", "limit": 1000})


def test_accepted_twice_is_one_job_and_one_event(ask: Ask) -> None:
    job = new_job()
    assert result(ask, accept(job)) == {"new": True, "state": "accepted"}
    result(ask, start(job))
    before = everything(ask, job)
    assert result(ask, {**accept(job), "at": 1.5}) == {"new": False, "state": "running"}
    assert everything(ask, job) == before


def test_a_question_whose_answer_was_lost_with_the_store_is_answered_as_it_was_then(ask: Ask) -> None:
    mine = {**accept(new_job()), "host": "aaaaaaaaaaaa", "at": 1795000000.123456}
    for _ in range(2):
        assert result(ask, mine) == {"new": True, "state": "accepted"}
    for other in ({"host": "bbbbbbbbbbbb"}, {"at": 1795000000.123457}):
        assert result(ask, {**mine, **other}) == {"new": False, "state": "accepted"}


def test_the_digest_of_the_image_is_kept_and_told_with_each_attempt(ask: Ask) -> None:
    job = new_job()
    result(ask, accept(job))
    result(ask, {**start(job), "image_digest": DIGEST})
    (attempt,) = result(ask, {"op": "job", "job": job})["attempts"]
    assert attempt["image_digest"] == DIGEST
    told = [json.loads(event["body"])["image_digest"] for event in result(ask, {"op": "outbox"})["events"]]
    assert told == [None, DIGEST]


def test_whole_life_of_a_job_is_kept_and_told(ask: Ask) -> None:
    job = new_job()
    result(ask, accept(job, at=1.0))
    result(ask, {**start(job, at=2.0), "image_digest": DIGEST})
    for at, name in enumerate(("booting", "running", "collecting", "cleaning"), start=3):
        assert result(ask, phase(job, name, at=at)) == {"repeated": False}
    assert result(ask, finish(job, at=9.0)) == {"repeated": False}
    assert result(ask, phase(job, "done", at=10.0)) == {"repeated": False}

    kept = result(ask, {"op": "job", "job": job[:8]})
    assert kept["job"]["request"]["request_id"] == job
    assert (kept["job"]["state"], kept["job"]["counted"], kept["job"]["exit_code"]) == ("succeeded", 1, 0)
    assert (kept["job"]["accepted_at"], kept["job"]["started_at"], kept["job"]["ended_at"]) == (1.0, 2.0, 9.0)
    (attempt,) = kept["attempts"]
    assert attempt["timings"] == TIMINGS
    assert (attempt["outcome"], attempt["ended_at"]) == ("succeeded", 10.0)

    accepted, running, succeeded = result(ask, {"op": "outbox", "limit": 10})["events"]
    assert accepted["routing_key"] == "job.accepted.ubuntu-22.04"
    assert running["routing_key"] == "job.running.ubuntu-22.04"
    assert succeeded["routing_key"] == "job.succeeded.ubuntu-22.04"
    assert json.loads(succeeded["body"]) == {
        "schema_version": "jobevent.v1",
        "event_id": succeeded["message_id"],
        "job_id": job,
        "state": "succeeded",
        "label": "ubuntu-22.04",
        "image": "ubuntu-22.04-image",
        "image_digest": DIGEST,
        "attempt": 1,
        "cause": None,
        "cause_text": None,
        "remedy": None,
        "detail": "",
        "exit_code": 0,
        "steps": [{"name": "build", "exit_code": 0, "seconds": 1.5}],
        "backend": "noop",
        "host": "0123456789ab",
        "source": "a test",
        "accepted_at": 1.0,
        "started_at": 2.0,
        "ended_at": 9.0,
        "at": 9.0,
    }


def test_failure_is_told_with_its_sentence_and_remedy(ask: Ask) -> None:
    job = new_job()
    result(ask, accept(job))
    result(ask, start(job))
    result(ask, finish(job, "errored", cause="infra.worker_crashed"))
    told = events(ask)[-1]
    assert told["cause"] == "infra.worker_crashed"
    assert told["cause_text"] == Cause.WORKER_CRASHED.sentence
    assert told["remedy"] == Cause.WORKER_CRASHED.remedy


def test_repeated_orders_change_nothing(ask: Ask) -> None:
    job = new_job()
    result(ask, accept(job))
    for order in (start(job), phase(job, "booting"), release(job), start(job, 2), finish(job, attempt=2)):
        assert result(ask, order) == {"repeated": False}
        before = everything(ask, job)
        assert result(ask, {**order, "at": 77.0}) == {"repeated": True}
        assert everything(ask, job) == before


def test_illegal_moves_are_refused_and_change_nothing(ask: Ask) -> None:
    waiting, running, ended = new_job(), new_job(), new_job()
    for job in (waiting, running, ended):
        result(ask, accept(job))
    for job in (running, ended):
        result(ask, start(job))
    result(ask, finish(ended))
    orders = (
        finish(waiting, "succeeded", attempt=0),
        start(running, 2),
        {**start(running), "host": "another host"},
        phase(running, "collecting"),
        phase(running, "done"),
        finish(running, "failed", attempt=0, cause="user.step_failed"),
        start(ended, 2),
        release(ended),
        finish(ended, "failed", cause="user.step_failed"),
    )
    for order in orders:
        before = everything(ask, order["job"])
        assert ask(order)["kind"] == "illegal_move", order
        assert everything(ask, order["job"]) == before


def test_attempt_that_is_over_cannot_end_the_job_that_moved_on(ask: Ask) -> None:
    job = new_job()
    result(ask, accept(job))
    result(ask, start(job, 1))
    result(ask, release(job, 1))
    assert ask(finish(job, "errored", 1, "infra.vm_lost"))["kind"] == "illegal_move"
    result(ask, start(job, 2))
    assert ask(finish(job, "succeeded", 1))["kind"] == "illegal_move"
    assert result(ask, release(job, 1)) == {"repeated": True}
    assert result(ask, {"op": "job", "job": job})["job"]["state"] == "running"


def test_attempt_numbers_never_come_back(ask: Ask) -> None:
    job = new_job()
    result(ask, accept(job))
    result(ask, start(job, 1))
    result(ask, release(job, 1))
    assert ask(start(job, 1))["kind"] == "illegal_move"
    assert ask(start(job, 0))["kind"] == "illegal_move"
    assert result(ask, {"op": "open"})["jobs"][0]["next_attempt"] == 2


def test_attempt_of_a_stopping_host_is_not_counted(ask: Ask) -> None:
    job = new_job()
    result(ask, accept(job))
    result(ask, start(job, 1))
    result(ask, release(job, 1, counted=False))
    (waiting,) = result(ask, {"op": "open"})["jobs"]
    assert (waiting["counted"], waiting["next_attempt"], waiting["state"]) == (0, 2, "accepted")
    told = events(ask)[-1]
    assert (told["state"], told["attempt"], told["cause"]) == ("accepted", 1, "infra.host_stopping")
    result(ask, start(job, 2))
    assert result(ask, {"op": "job", "job": job})["job"]["counted"] == 1


def test_waiting_job_can_be_cancelled_without_an_attempt(ask: Ask) -> None:
    job = new_job()
    result(ask, accept(job))
    result(ask, finish(job, "cancelled", attempt=0, cause="user.cancelled"))
    told = events(ask)[-1]
    assert (told["state"], told["cause"], told["attempt"], told["host"]) == ("cancelled", "user.cancelled", 0, None)


def test_open_has_what_a_recovery_needs_in_order_of_acceptance(ask: Ask) -> None:
    waiting, running, ended, clean = jobs = [new_job() for _ in range(4)]
    for job in jobs:
        result(ask, accept(job))
    for job in (clean, ended, running):
        result(ask, start(job))
    for job in (ended, clean):
        result(ask, finish(job))
    for name in ("cleaning", "done"):
        result(ask, phase(clean, name))
    found = result(ask, {"op": "open"})
    assert [(job["id"], job["state"], job["next_attempt"]) for job in found["jobs"]] == [
        (waiting, "accepted", 1),
        (running, "running", 2),
    ]
    assert [(row["job"], row["attempt"], row["phase"]) for row in found["attempts"]] == [
        (running, 1, "preparing"),
        (ended, 1, "preparing"),
    ]
    assert found["jobs"][0]["request"]["runs_on"] == "ubuntu-22.04"
    assert not found["more"]


def test_large_requests_come_back_in_pages_that_fit_on_a_line(ask: Ask) -> None:
    jobs = [new_job() for _ in range(7)]
    for job in jobs:
        order = accept(job)
        result(ask, {**order, "request": {**order["request"], "env": {"BIG": '"' * (MAX_REQUEST // 2 - 1000)}}})
    seen: list[str] = []
    after, more = 0, True
    while more:
        reply = ask({"op": "open", "after": after})
        assert len(encode(reply)) < MAX_LINE
        page = reply["result"]
        seen += [job["id"] for job in page["jobs"]]
        after, more = page["jobs"][-1]["seq"], page["more"]
    assert seen == jobs
    assert after > 0


def test_request_that_could_not_be_read_back_is_refused(ask: Ask) -> None:
    order = accept(new_job())
    reply = ask({**order, "request": {**order["request"], "env": {"BIG": "x" * MAX_REQUEST}}})
    assert reply["kind"] == "bad_request"


def test_outbox_gives_the_oldest_first_until_they_are_sent(ask: Ask) -> None:
    for _ in range(3):
        result(ask, accept(new_job()))
    first, second = result(ask, {"op": "outbox", "limit": 2})["events"]
    assert first["seq"] < second["seq"]
    result(ask, {"op": "sent", "message_ids": [first["message_id"], "unknown"]})
    result(ask, {"op": "sent", "message_ids": [first["message_id"]]})
    left = result(ask, {"op": "outbox", "limit": 10})["events"]
    assert left[0] == second
    assert len(left) == 2


def test_rejected_request_leaves_an_event_and_nothing_else(ask: Ask) -> None:
    order = {
        "op": "reject",
        "request_id": None,
        "cause": "request.invalid",
        "detail": "not JSON",
        "at": 4.0,
        "occasion": "x",
    }
    result(ask, order)
    result(ask, {**order, "at": 5.0})
    result(ask, {**order, "occasion": "y"})
    rows = result(ask, {"op": "outbox", "limit": 10})["events"]
    assert [row["routing_key"] for row in rows] == ["job.rejected.unknown"] * 2, "the repeat is no second event"
    body = json.loads(rows[0]["body"])
    assert (body["request_id"], body["cause"], body["detail"], body["at"]) == (None, "request.invalid", "not JSON", 4.0)
    assert result(ask, {"op": "jobs"})["jobs"] == []


def test_routing_key_of_a_hostile_label_fits_the_broker(ask: Ask) -> None:
    order = {"op": "reject", "request_id": "x", "cause": "request.invalid", "detail": "", "at": 4.0}
    result(ask, {**order, "occasion": "1", "label": "é" * 200})
    result(ask, {**order, "occasion": "2", "label": "no-such-label"})
    keys = [row["routing_key"] for row in result(ask, {"op": "outbox", "limit": 10})["events"]]
    assert keys == ["job.rejected.unknown", "job.rejected.no-such-label"]


def test_text_that_no_database_takes_does_not_lose_an_outcome(ask: Ask) -> None:
    job = new_job()
    result(ask, accept(job))
    result(ask, start(job))
    detail = "half \ud800 and nul \0 " + "x" * store_fields.MAX_DETAIL
    result(ask, {**finish(job, "failed", cause="user.step_failed"), "detail": detail})
    kept = result(ask, {"op": "job", "job": job})["job"]["detail"]
    assert kept.startswith("half ? and nul \ufffd ")
    assert kept.endswith("x […]")


def test_jobs_are_newest_first_and_by_state(ask: Ask) -> None:
    jobs = [new_job() for _ in range(3)]
    for job in jobs:
        result(ask, accept(job))
    result(ask, start(jobs[1]))
    assert [job["id"] for job in result(ask, {"op": "jobs", "limit": 2})["jobs"]] == [jobs[2], jobs[1]]
    assert [job["id"] for job in result(ask, {"op": "jobs", "state": "running"})["jobs"]] == [jobs[1]]
    counts = result(ask, {"op": "counts"})["counts"]
    assert (counts["accepted"], counts["running"], counts["failed"]) == (2, 1, 0)


def test_job_is_found_by_the_beginning_of_its_id_if_it_is_the_only_one(ask: Ask) -> None:
    one, two = "abcd1111-0000-4000-8000-000000000000", "abcd2222-0000-4000-8000-000000000000"
    for job in (one, two):
        result(ask, accept(job))
    assert result(ask, {"op": "job", "job": "abcd2"})["job"]["id"] == two
    assert ask({"op": "job", "job": "abcd"})["kind"] == "bad_request"
    assert ask({"op": "job", "job": "abc"})["kind"] == "bad_request"
    assert ask({"op": "job", "job": "%%%%"})["kind"] == "bad_request"
    assert ask({"op": "job", "job": "ffff"})["kind"] == "unknown_job"


def test_host_is_known_once(ask: Ask) -> None:
    assert result(ask, {"op": "host", "owner": "0123456789ab", "name": "old", "at": 1.0}) == {}
    assert result(ask, {"op": "host", "owner": "0123456789ab", "name": "new", "at": 2.0}) == {}


def test_unknown_job_and_attempt_are_refused(ask: Ask) -> None:
    job = new_job()
    for order in (start(job), finish(job), release(job), phase(job, "booting")):
        assert ask(order)["kind"] == "unknown_job"
    result(ask, accept(job))
    assert ask(phase(job, "booting", attempt=3))["kind"] == "unknown_job"


@pytest.mark.parametrize(
    "broken",
    [
        {"op": "nonsense"},
        {"op": None},
        {"op": ["accept"]},
        {},
        {"op": "start"},
        {**start("x"), "surprise": 1},
        {**start("x"), "attempt": True},
        {**start("x"), "attempt": 1 << 40},
        {**start("x"), "at": "now"},
        {**accept("not-a-uuid")},
        {**accept(new_job().upper())},
        {**accept(new_job()), "label": ""},
        {**accept(new_job()), "request": {}},
        {**accept(new_job()), "request": []},
        {**phase("x", "flying")},
        {**finish("x", "running", cause="user.timeout")},
        {**finish("x", "failed")},
        {**finish("x", "succeeded", cause="user.timeout")},
        {**finish("x", "failed", cause="user.unheard_of")},
        {**finish("x"), "steps": [{"name": "x"}]},
        {**finish("x"), "steps": "none"},
        {"op": "outbox", "limit": 0},
        {"op": "jobs", "limit": -1},
        {"op": "sent", "message_ids": [1]},
        {"op": "configure", "url": "sqlite://"},
    ],
    ids=repr,
)
def test_message_that_is_not_understood_is_refused(ask: Ask, broken: Message) -> None:
    assert ask(broken)["kind"] == "bad_request"


def test_time_that_is_no_number_is_refused() -> None:
    # JSON as Python reads it has NaN, and a database might take it
    with pytest.raises(Refused, match="not a finite number"):
        parse({**accept(new_job()), "at": float("nan")})
