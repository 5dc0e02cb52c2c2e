"""The copy of a refused message, for whatever a sender can put into it."""

from __future__ import annotations

from typing import Any

import pika
import pytest
from hypothesis import given
from hypothesis import strategies as st

from solstice.broker.deadletter import MAX_BODY, MAX_DETAIL, PREFIX, dead_letter
from solstice.broker.publisher import Outgoing
from solstice.broker.topology import DEAD_LETTERS
from solstice.errors import Cause

from .owner import JOBS, connected, operator, run

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
headers = st.dictionaries(st.text() | st.sampled_from(["x-death", "CC", "x-solstice-reason", "trace"]), anything)


@given(st.binary(max_size=100), headers, st.sampled_from(Cause), st.text(), st.text())
def test_any_copy_can_be_published_and_names_its_reason(
    body: bytes, given: dict[str, Any], cause: Cause, detail: str, message_id: str
) -> None:
    copy, kept = dead_letter(body, given, cause, detail, message_id)
    assert copy == body
    assert kept["x-solstice-reason"] == cause.value
    assert len(kept["x-solstice-detail"].encode()) <= MAX_DETAIL
    encoded = b"".join(pika.BasicProperties(headers=kept).encode())
    assert len(encoded) < 64 << 10
    assert pika.BasicProperties().decode(encoded).headers == kept


@given(headers)
def test_a_sender_cannot_forge_our_headers_or_the_brokers(given: dict[str, Any]) -> None:
    _body, kept = dead_letter(b"", given, Cause.INVALID, "why")
    ours = {name for name in kept if name.lower().startswith(PREFIX)}
    assert ours == {"x-solstice-reason", "x-solstice-detail"}
    assert kept["x-solstice-reason"] == "request.invalid"
    assert not {"x-death", "cc", "bcc"} & {name.lower() for name in kept}


@given(st.text(alphabet="aä€😀", min_size=MAX_DETAIL))
def test_a_long_detail_is_cut_at_a_character(detail: str) -> None:
    _body, kept = dead_letter(b"", {}, Cause.INVALID, detail)
    cut = kept["x-solstice-detail"]
    assert detail.startswith(cut)
    assert MAX_DETAIL - 4 < len(cut.encode()) <= MAX_DETAIL


def test_a_large_body_is_cut_and_marked() -> None:
    body, kept = dead_letter(b"x" * (MAX_BODY + 1), {}, Cause.INVALID, "too large")
    assert len(body) == MAX_BODY
    assert kept["x-solstice-truncated"] is True
    assert kept["x-solstice-size"] == MAX_BODY + 1


def test_a_body_that_fits_is_not_marked() -> None:
    body, kept = dead_letter(b"x" * MAX_BODY, {}, Cause.INVALID, "")
    assert len(body) == MAX_BODY
    assert "x-solstice-truncated" not in kept


def test_plain_headers_are_kept_and_the_message_id_is_too() -> None:
    given = {"trace": "abc", "retry": 3, "debug": True, "long": "x" * 1000, "deep": {"a": 1}, "x-death": []}
    _body, kept = dead_letter(b"", given, Cause.UNSCHEDULABLE, "no such label", "id-1")
    assert kept == {
        "trace": "abc",
        "retry": 3,
        "debug": True,
        "x-solstice-reason": "request.unschedulable",
        "x-solstice-detail": "no such label",
        "x-solstice-message-id": "id-1",
    }


@pytest.mark.broker
def test_a_dead_letter_arrives_with_its_headers(vhost: str) -> None:
    async def scenario() -> None:
        async with connected(vhost) as (connection, _owner):
            body, kept = dead_letter(b"\xff not json", {"trace": "abc"}, Cause.INVALID, "not UTF-8 — really", "id-1")
            await connection.publish(
                Outgoing(DEAD_LETTERS, JOBS.dead_letter_queue, body, "id-1", headers=kept, mandatory=True)
            )

    run(scenario)
    with operator(vhost) as channel:
        _method, properties, body = channel.basic_get(JOBS.dead_letter_queue, auto_ack=True)
    assert body == b"\xff not json"
    assert properties.message_id == "id-1"
    assert properties.headers == {
        "trace": "abc",
        "x-solstice-reason": "request.invalid",
        "x-solstice-detail": "not UTF-8 — really",
        "x-solstice-message-id": "id-1",
    }
