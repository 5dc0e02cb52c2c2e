"""What a worker tells the supervisor, and keeps in its journal: numbered events, one JSON object a line.

    phase     the attempt has entered a phase
    outcome   how the attempt ended; the VM may still be there
    found     the answer to a sweep or a probe
    done      nothing of the attempt is left on the host; the last report
    failed    a clean, sweep or probe could not be carried out; the last report

Numbers count from 1 and have no gap, so that a reader who comes back knows from where to read on.
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


@dataclass(frozen=True, slots=True)
class PhaseEntered:
    phase: Phase


@dataclass(frozen=True, slots=True)
class Ended:
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Found:
    """`removed` names what a sweep removed; `probe` is set by a probe alone."""

    removed: tuple[str, ...] = ()
    probe: ProbeResult | None = None


@dataclass(frozen=True, slots=True)
class Done:
    pass


@dataclass(frozen=True, slots=True)
class Failed:
    cause: Cause
    why: str
    remedy: str = ""


Report = PhaseEntered | Ended | Found | Done | Failed
_KINDS: dict[str, type[PhaseEntered | Ended | Found | Done | Failed]] = {
    "phase": PhaseEntered,
    "outcome": Ended,
    "found": Found,
    "done": Done,
    "failed": Failed,
}


def encode(report: Report, number: int, at: float) -> dict[str, Any]:
    """`at` is wall-clock time in seconds since the epoch."""
    kind = next(name for name, cls in _KINDS.items() if type(report) is cls)
    return {"v": VERSION, "n": number, "at": at, "type": kind, "report": to_plain(report)}


def decode(message: Message) -> tuple[Report, float]:
    """The report and its time.  Raises `BadMessage`."""
    kind = _KINDS.get(str(message.get("type")))
    if message.get("v") != VERSION or kind is None:
        raise BadMessage("not a report that this supervisor knows", f"v={message.get('v')} type={message.get('type')}")
    return from_plain(kind, message.get("report")), from_plain(float, message.get("at"))
