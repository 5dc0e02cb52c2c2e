"""Messages that are no request: each is dead-lettered with its reason, and harms nothing."""

from __future__ import annotations

import json

import pytest

from tests.e2e.service import Service, dead_letters, encoded, raw_publish

pytestmark = pytest.mark.broker

LARGEST = 128 << 20  # RabbitMQ 3.10's max_message_size

BAD = {
    "not JSON": b"{",
    "empty": b"",
    "not UTF-8": b'{"schema_version": "\xff"}',
    "not an object": b"[1, 2]",
    "wrong version": encoded(schema_version="jobrequest.v9"),
    "unknown label": encoded(runs_on="amiga-1000"),
    "deep nesting": b"[" * 200_000 + b"]" * 200_000,
    "NaN": json.dumps({"timeout_s": float("nan")}).encode(),
    "unknown field": encoded(colour="blue"),
    "no steps": encoded(steps=[]),
    "unknown size": encoded(size="gigantic"),
}


def test_each_kind_of_bad_message_is_dead_lettered_with_its_reason(noop: Service) -> None:
    raw_publish(noop.amqp_url, *BAD.values())
    noop.said("request rejected", times=len(BAD))
    letters = dead_letters(noop.amqp_url)
    assert sorted(body for _headers, body in letters) == sorted(BAD.values())
    for headers, body in letters:
        unschedulable = body in (BAD["unknown label"], BAD["unknown size"])
        assert headers["x-solstice-reason"] == ("request.unschedulable" if unschedulable else "request.invalid")
        assert 0 < len(headers["x-solstice-detail"].encode()) <= 1024
    event = noop.outcome("true")
    assert (event["state"], event["backend"]) == ("succeeded", "noop")


def test_a_message_as_large_as_the_broker_takes_is_cut_and_marked(noop: Service) -> None:
    raw_publish(noop.amqp_url, b"x" * LARGEST)
    noop.said("request rejected")
    ((headers, body),) = dead_letters(noop.amqp_url)
    assert len(body) == 1 << 20
    assert headers["x-solstice-truncated"] is True
    assert headers["x-solstice-size"] == LARGEST
    assert noop.outcome("true")["state"] == "succeeded"


def test_an_unknown_label_is_answered_with_those_that_there_are(noop: Service) -> None:
    raw_publish(noop.amqp_url, BAD["unknown label"])
    noop.said("request rejected")
    ((headers, _body),) = dead_letters(noop.amqp_url)
    assert "amiga-1000 is no label of this host, which has tiny" in headers["x-solstice-detail"]


def test_the_same_request_again_is_no_second_job(noop: Service) -> None:
    request_id = noop.outcome("true")["job_id"]
    raw_publish(noop.amqp_url, encoded(request_id=request_id))
    noop.said("request seen before")
    assert [job["id"] for job in noop.ask("jobs")] == [request_id]
