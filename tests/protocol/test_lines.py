from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from solstice.protocol.lines import MAX_LINE, BadLine, Lines, decode, encode

messages = st.lists(st.dictionaries(st.text(), st.text() | st.integers() | st.none(), max_size=3), max_size=5)


@given(messages, st.data())
def test_messages_arrive_whole_and_in_order_however_the_bytes_are_cut(sent: list[dict[str, Any]], data: Any) -> None:
    stream = b"".join(encode(message) for message in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    collector = Lines()
    pieces = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert [message for piece in pieces for message in collector.feed(piece)] == sent


@given(st.dictionaries(st.text(), st.text()))
def test_a_message_is_one_line_of_ascii(message: dict[str, str]) -> None:
    line = encode(message)
    assert line.isascii()
    assert line.index(b"\n") == len(line) - 1


def test_a_torn_last_line_is_never_given_back() -> None:
    assert Lines().feed(b'{"n":1}\n{"n":2}') == [{"n": 1}]


def test_an_empty_line_is_no_message() -> None:
    assert Lines().feed(b'\n\n{"n":1}\n\n') == [{"n": 1}]


@pytest.mark.parametrize("line", [b"x", b"[1]", b"7", b"null", b'{"a":', b"\xff\xfe", b"[" * 100_000])
def test_what_is_not_an_object_is_refused(line: bytes) -> None:
    with pytest.raises(BadLine):
        decode(line)


@given(st.binary(max_size=100))
def test_any_bytes_are_objects_or_refused(line: bytes) -> None:
    with contextlib.suppress(BadLine):
        assert isinstance(decode(line), dict)


def test_a_line_without_an_end_is_refused_at_the_limit() -> None:
    collector = Lines()
    assert collector.feed(b"x" * MAX_LINE) == []
    with pytest.raises(BadLine, match=f"longer than {MAX_LINE} bytes"):
        collector.feed(b"x")


def test_what_json_cannot_say_is_not_sent() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        encode({"nan": float("nan")})
    assert json.loads(encode({"a": "\n\u20ac"})) == {"a": "\n\u20ac"}
