"""What a worker tells the supervisor, and keeps in its journal: numbered reports, one JSON object a line.

    identity  who carries the attempt out; number 0, the first line of a journal
    phase     the attempt has entered a phase
    step      a step has begun in the guest, or ended there
    outcome   how the attempt ended; the VM may still be there
    found     the answer to a list, a probe or a forget
    done      nothing of the attempt is left on the host; the last report
    failed    what was ordered could not be carried out to its end; the last report

An attempt's numbers count from 0, an errand's from 1, and have no gap, so that a reader who comes back knows from
where to read on.  Between them, with no number and in no journal, a worker that waits says that it is `alive`.

What may change here without another version, and what may not, stands in protocol/attach.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from solstice.errors import Cause
from solstice.lifecycle import Phase
from solstice.model import Outcome
from solstice.protocol.codec import BadMessage, from_plain, to_plain
from solstice.protocol.lines import Message
from solstice.protocol.order import ProbeResult

VERSION = 1
# What is read: our own version, and that of the workers which an upgrade finds at work.
READABLE = (VERSION,)
# How often, in seconds, a worker that waits says that it is alive; one inside a call to its hypervisor does not.
HEARTBEAT = 5.0


@dataclass(frozen=True, slots=True)
class Identity:
    """`host` is the owner's id; `started` is when process `pid` began, as psutil tells it: seconds since the epoch."""

    host: str
    pid: int
    started: float
    job: str
    attempt: int


@dataclass(frozen=True, slots=True)
class PhaseEntered:
    """`guest_at` is set for a phase that begins with a word of the guest."""

    phase: Phase
    guest_at: int | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """The step `index` of the request (the checkout is `session.CHECKOUT`); without an `exit_code` it has just begun.

    `guest_at` is the time by the guest's own clock, in whole seconds since the epoch; None if the guest did not say.
    """

    index: int
    name: str
    exit_code: int | None = None
    guest_at: int | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Found:
    """`names` are those of attempts, found by a list, or of jobs whose logs are gone; `probe` is a probe's alone."""

    names: tuple[str, ...] = ()
    probe: ProbeResult | None = None


@dataclass(frozen=True, slots=True)
class Done:
    pass


@dataclass(frozen=True, slots=True)
class Failed:
    cause: Cause
    why: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Alive:
    """Nothing happened, and the worker is there to say so."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """A report of a kind that only another version knows: it has its number and its time, and means nothing here."""

    type: str


Report = Identity | PhaseEntered | Step | Ended | Found | Done | Failed
Said = Report | Alive | Unknown
_KINDS: dict[str, type[Report]] = {
    "identity": Identity,
    "phase": PhaseEntered,
    "step": Step,
    "outcome": Ended,
    "found": Found,
    "done": Done,
    "failed": Failed,
}
_ALIVE = "alive"


def kind_of(report: Report) -> str:
    """The word for this kind of report, as it stands in `type`."""
    return next(name for name, cls in _KINDS.items() if type(report) is cls)


def encode(report: Report, number: int, at: float) -> dict[str, Any]:
    """`at` is wall-clock time in seconds since the epoch."""
    return {"v": VERSION, "n": number, "at": at, "type": kind_of(report), "report": to_plain(report)}


def encode_alive(at: float) -> dict[str, Any]:
    return {"v": VERSION, "at": at, "type": _ALIVE}


def decode(message: Message) -> tuple[Said, float]:
    """What was said, and its time.  Raises `BadMessage`."""
    name = message.get("type")
    if message.get("v") not in READABLE or not isinstance(name, str):
        raise BadMessage("not a report that this supervisor reads", f"v={message.get('v')} type={name}")
    at = from_plain(float, message.get("at"))
    if name == _ALIVE:
        return Alive(), at
    kind = _KINDS.get(name)
    return (from_plain(kind, message.get("report")) if kind is not None else Unknown(name)), at


def number(message: Message) -> int | None:
    """The number of a report; None if it has none, as `alive`.  Raises `BadMessage`."""
    found = message.get("n")
    return None if found is None else from_plain(int, found)
