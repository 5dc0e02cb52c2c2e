"""What our own processes tell each other survives the way through bytes, and what is not a message is refused."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from solstice.errors import Cause
from solstice.lifecycle import JobState, Phase
from solstice.model import AttemptId, Backend, Outcome, StepResult
from solstice.protocol import attach, lines, order, reports, session
from solstice.protocol.codec import BadMessage, from_plain, to_plain

_SCALARS = {
    str: st.text(),
    int: st.integers(),
    float: st.floats(allow_nan=False, allow_infinity=False),
    bool: st.booleans(),
    Path: st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])).map(Path),
}


def values(kind: Any) -> st.SearchStrategy[Any]:
    """Values of a type by its annotations; written apart from the codec, so that both must be right."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        return st.one_of(*(st.none() if arg is types.NoneType else values(arg) for arg in args))
    if origin is tuple:
        return st.lists(values(args[0]), max_size=3).map(tuple)
    if origin is Mapping:
        return st.dictionaries(values(args[0]), values(args[1]), max_size=3)
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return st.builds(typing.cast(Any, kind), **{name: values(hint) for name, hint in hints.items()})
    if issubclass(kind, enum.Enum):
        return st.sampled_from(kind)
    return _SCALARS[kind]


def over_the_wire(message: Mapping[str, Any]) -> lines.Message:
    [arrived] = lines.Lines().feed(lines.encode(message))
    return arrived


@given(values(order.Order))
def test_an_order_arrives_as_it_was_given(sent: order.Order) -> None:
    assert order.decode(over_the_wire(order.encode(sent))) == sent


@given(values(order.Stop))
def test_a_stop_arrives_as_it_was_given(sent: order.Stop) -> None:
    assert order.decode_stop(over_the_wire(order.encode_stop(sent))) == sent


@given(values(reports.Report), st.integers(1), st.floats(0, 1e12))
def test_a_report_arrives_as_it_was_made_with_its_number_and_time(sent: reports.Report, n: int, at: float) -> None:
    message = over_the_wire(reports.encode(sent, n, at))
    assert reports.decode(message) == (sent, at)
    assert message["n"] == n


@given(values(session.Begin) | st.just(session.Cancel()))
def test_what_a_worker_tells_its_session_arrives(sent: session.Begin | session.Cancel) -> None:
    assert session.decode_for_session(over_the_wire(session.encode(sent))) == sent


@given(values(session.Told))
def test_what_a_session_tells_its_worker_arrives(sent: session.Told) -> None:
    assert session.decode_for_worker(over_the_wire(session.encode(sent))) == sent


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
_envelopes = st.fixed_dictionaries(
    {},
    optional={
        "v": st.just(1) | _json,
        "type": st.sampled_from(
            ["run", "clean", "list", "probe", "stop", "phase", "outcome", "alive", "attach", "begin", "told"]
        )
        | _json,
        "at": st.floats(allow_nan=False) | _json,
        **dict.fromkeys(("order", "stop", "report", "body", "n", "after"), _json),
    },
)


@pytest.mark.parametrize(
    "decode",
    [
        order.decode,
        order.decode_stop,
        reports.decode,
        reports.number,
        attach.decode,
        session.decode_for_session,
        session.decode_for_worker,
    ],
)
@given(message=_envelopes)
def test_any_json_object_is_decoded_or_refused_and_nothing_else(decode: Any, message: lines.Message) -> None:
    with contextlib.suppress(BadMessage):
        decode(message)


def test_an_order_of_another_version_is_refused() -> None:
    listing = order.List(order.Hypervisor(Backend.NOOP), "0123456789ab", Path("/jobs"))
    with pytest.raises(BadMessage, match="v=2"):
        order.decode({**order.encode(listing), "v": 2})


@pytest.mark.parametrize("message", [{}, {"v": 1, "type": "list"}, {"v": 1, "type": ["list"]}])
def test_what_is_no_order_is_refused(message: lines.Message) -> None:
    with pytest.raises(BadMessage):
        order.decode(message)


@pytest.mark.parametrize("at", [None, "1", True, 10**400])
def test_a_report_at_no_time_is_refused(at: Any) -> None:
    with pytest.raises(BadMessage):
        reports.decode({**reports.encode(reports.Done(), 1, 0.0), "at": at})


def test_a_missing_field_takes_its_default_and_an_unknown_one_is_ignored() -> None:
    plain = {"state": "failed", "since a later version": 1}
    assert from_plain(Outcome, plain) == Outcome(JobState.FAILED)


@pytest.mark.parametrize(
    ("kind", "plain", "why"),
    [
        (Outcome, {}, "state"),
        (Outcome, {"state": "undecided"}, "undecided"),
        (Outcome, [], "Outcome"),
        (Outcome, {"state": "failed", "exit_code": "1"}, "int expected, not str"),
        (Outcome, {"state": "failed", "exit_code": True}, "int expected, not bool"),
        (StepResult, {"name": 7, "exit_code": 0, "seconds": 0.5}, "str expected, not int"),
        (AttemptId, {"owner": "a", "job": "b", "attempt": 1.5}, "int expected, not float"),
        (reports.PhaseEntered, {"phase": None}, "None"),
    ],
)
def test_a_value_of_another_shape_is_refused_with_the_reason(kind: type[Any], plain: Any, why: str) -> None:
    with pytest.raises(BadMessage, match=why):
        from_plain(kind, plain)


def test_a_whole_number_of_seconds_is_a_float() -> None:
    step = from_plain(StepResult, {"name": "a", "exit_code": 0, "seconds": 2})
    assert type(step.seconds) is float


def test_plain_values_are_json_alone() -> None:
    @dataclass(frozen=True)
    class Nested:
        cause: Cause | None
        phases: tuple[Phase, ...]
        places: Mapping[str, Path]

    nested = Nested(Cause.IMAGE, (Phase.HELD, Phase.DONE), {"a": Path("/b")})
    assert to_plain(nested) == {"cause": "infra.image", "phases": ["held", "done"], "places": {"a": "/b"}}
    assert to_plain(dataclasses.replace(nested, cause=None))["cause"] is None
