"""A supervisor and the workers of another version: what the lines of version 1 are, and what may be new on them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from solstice.errors import Cause
from solstice.lifecycle import JobState, Phase
from solstice.model import Outcome, StepResult
from solstice.protocol import attach, lines, order, reports
from solstice.protocol.codec import BadMessage

JOB = "7f3a91c2-0000-4000-8000-000000000000"
# As workers of version 1 wrote them.  These lines are never changed: such workers may be at work on any host.
VERSION_1: dict[str, reports.Said] = {
    '{"v":1,"n":0,"at":1.5,"type":"identity","report":{"host":"0123456789ab","pid":7,"started":1.25,'
    f'"job":"{JOB}","attempt":1}}}}': reports.Identity("0123456789ab", 7, 1.25, JOB, 1),
    '{"v":1,"n":1,"at":1.5,"type":"phase","report":{"phase":"running"}}': reports.PhaseEntered(Phase.RUNNING),
    '{"v":1,"n":2,"at":1.5,"type":"outcome","report":{"outcome":{"state":"failed","cause":"user.step_failed",'
    '"detail":"why","exit_code":3,"steps":[{"name":"build","exit_code":3,"seconds":0.5}]}}}': reports.Ended(
        Outcome(JobState.FAILED, Cause.STEP_FAILED, "why", 3, (StepResult("build", 3, 0.5),))
    ),
    '{"v":1,"n":3,"at":1.5,"type":"failed","report":{"cause":"infra.hypervisor","why":"w","remedy":"r"}}': (
        reports.Failed(Cause.HYPERVISOR, "w", "r")
    ),
    '{"v":1,"n":4,"at":1.5,"type":"done","report":{}}': reports.Done(),
    '{"v":1,"at":1.5,"type":"alive"}': reports.Alive(),
}


@pytest.mark.parametrize("line", VERSION_1)
def test_a_worker_of_version_1_is_understood(line: str) -> None:
    assert reports.decode(lines.decode(line.encode())) == (VERSION_1[line], 1.5)


@pytest.mark.parametrize("line", VERSION_1)
def test_what_a_worker_says_now_is_what_a_supervisor_of_version_1_understands(line: str) -> None:
    report, message = VERSION_1[line], json.loads(line)
    if isinstance(report, reports.Report):
        said = reports.encode(report, message["n"], 1.5)
        assert said["report"].items() >= message["report"].items(), "what it does not know it lets pass"
        assert {**said, "report": message["report"]} == message
    else:
        assert reports.encode_alive(1.5) == message


@pytest.mark.parametrize("line", VERSION_1)
def test_a_field_that_is_not_known_is_let_pass(line: str) -> None:
    message = json.loads(line)
    newer = {**message, "since": "later", "report": {**message.get("report", {}), "since": "later"}}
    assert reports.decode(newer) == (VERSION_1[line], 1.5)
    assert reports.number(newer) == message.get("n")


def test_a_step_is_said_on_a_line_with_both_clocks() -> None:
    step = reports.Step(0, "build", 3, guest_at=1_700_000_000)
    line = (
        '{"v":1,"n":4,"at":1.5,"type":"step","report":{"index":0,"name":"build","exit_code":3,"guest_at":1700000000}}\n'
    )
    assert lines.encode(reports.encode(step, 4, 1.5)).decode() == line
    assert reports.decode(lines.decode(line.strip().encode())) == (step, 1.5)
    assert reports.decode({**json.loads(line), "report": {"index": -1, "name": "checkout"}}) == (
        reports.Step(-1, "checkout", exit_code=None, guest_at=None),
        1.5,
    )


def test_a_kind_of_report_that_is_not_known_keeps_its_number_and_its_time() -> None:
    message = {"v": reports.VERSION, "n": 5, "at": 2.5, "type": "checkpoint", "report": {"of": ["later"]}}
    assert reports.decode(message) == (reports.Unknown("checkpoint"), 2.5)
    assert reports.number(message) == 5


@pytest.mark.parametrize("change", [{"v": reports.VERSION + 1}, {"v": 0}, {"v": None}, {"type": None}, {"at": None}])
def test_a_report_of_a_version_that_is_not_read_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(BadMessage):
        reports.decode({**reports.encode(reports.Done(), 1, 1.5), **change})


@pytest.mark.parametrize("n", ["1", 1.0, True])
def test_a_number_that_is_none_is_refused(n: Any) -> None:
    with pytest.raises(BadMessage):
        reports.number({"v": 1, "n": n})


def test_the_line_that_attaches() -> None:
    assert lines.encode(attach.encode(4)) == b'{"v":1,"type":"attach","after":4}\n'
    assert attach.decode({"v": 1, "type": "attach", "after": 4, "since": "later"}) == 4
    assert attach.decode(attach.encode(attach.FROM_THE_START)) == attach.FROM_THE_START


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"v": 2, "type": "attach", "after": 4},
        {"v": 1, "type": "stop", "after": 4},
        {"v": 1, "type": "attach"},
        {"v": 1, "type": "attach", "after": -2},
        {"v": 1, "type": "attach", "after": 4.0},
    ],
)
def test_what_does_not_attach_is_refused(message: lines.Message) -> None:
    with pytest.raises(BadMessage):
        attach.decode(message)


def test_only_a_stop_is_a_stop() -> None:
    assert order.is_stop(order.encode_stop(order.Stop(Outcome(JobState.ERRORED))))
    assert not order.is_stop({"v": 1, "type": "encourage"})
