"""A journal cut anywhere gives its whole lines; one with a hole those before it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from solstice.errors import Cause
from solstice.protocol import lines, reports
from solstice.protocol.journal import parse

MESSAGES: list[lines.Message] = [
    reports.encode(reports.Failed(Cause.HYPERVISOR, "x" * number), number, 1.5) for number in range(6)
]
WHOLE = b"".join(map(lines.encode, MESSAGES))
LINES = WHOLE.splitlines(keepends=True)


@given(st.integers(0, len(WHOLE)), st.integers(-1, 7))
def test_a_journal_cut_at_any_byte_has_the_lines_before(cut: int, after: int) -> None:
    there = WHOLE[:cut].count(b"\n")
    assert parse(WHOLE[:cut], "j", after) == (MESSAGES[after + 1 : there], "")


@pytest.mark.parametrize("torn", [b"\0" * 20, b'{"v":1,"n":6', b"\xff", b"{}"])
def test_whatever_stands_on_a_torn_last_line_counts_for_nothing(torn: bytes) -> None:
    assert parse(WHOLE + torn, "j") == (MESSAGES, "")


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"\0",
        b"[]",
        b"{",
        b"{}",
        b'{"v":1,"n":2,"at":1.5,"type":"done","report":{}}',
        b'{"v":1,"n":0,"at":1.5,"type":"done","report":{}}',
        b'{"v":1,"n":true,"at":1.5,"type":"done","report":{}}',
        b'{"v":1,"n":1.0,"at":1.5,"type":"done","report":{}}',
        b'{"v":1,"at":1.5,"type":"alive"}',
        b'{"v":9,"n":1,"at":1.5,"type":"done","report":{}}',
        b'{"v":1,"n":1,"at":1.5,"type":"failed","report":{"cause":"nobody\'s"}}',
    ],
)
@pytest.mark.parametrize("after", [-1, 0, 3])
def test_at_a_whole_line_that_is_not_the_next_one_a_journal_ends_and_file_and_line_are_named(
    bad: bytes, after: int
) -> None:
    messages, damage = parse(LINES[0] + bad + b"\n" + LINES[2], "/jobs/events.jsonl", after)
    assert messages == MESSAGES[after + 1 : 1]
    assert damage.startswith("/jobs/events.jsonl:2: ")
