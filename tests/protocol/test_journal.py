"""A journal cut anywhere gives its whole lines; one with a hole gives none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from solstice.protocol import lines
from solstice.protocol.journal import BadJournal, parse

MESSAGES: list[lines.Message] = [{"v": 1, "n": number, "said": "x" * number} for number in range(6)]
WHOLE = b"".join(map(lines.encode, MESSAGES))


@given(st.integers(0, len(WHOLE)), st.integers(-1, 7))
def test_a_journal_cut_at_any_byte_has_the_lines_before(cut: int, after: int) -> None:
    there = WHOLE[:cut].count(b"\n")
    assert parse(WHOLE[:cut], "j", after) == MESSAGES[after + 1 : there]


@pytest.mark.parametrize("torn", [b"\0" * 20, b'{"v":1,"n":6', b"\xff", b"{}"])
def test_whatever_stands_on_a_torn_last_line_counts_for_nothing(torn: bytes) -> None:
    assert parse(WHOLE + torn, "j") == MESSAGES


@pytest.mark.parametrize("bad", [b"", b"\0", b"[]", b"{", b"{}", b'{"n":true}', b'{"n":1.0}', b'{"n":2}', b'{"n":0}'])
def test_a_whole_line_that_is_not_the_next_one_is_an_error_with_file_and_line(bad: bytes) -> None:
    with pytest.raises(BadJournal, match=r"^/jobs/events\.jsonl:2: "):
        parse(lines.encode(MESSAGES[0]) + bad + b"\n" + lines.encode(MESSAGES[2]), "/jobs/events.jsonl")
