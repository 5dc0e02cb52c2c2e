"""The states of a job and the phases of an attempt, and the one function that moves between them.

Everything that says which move is legal stands in the two tables below; the supervisor moves by them, and the
store checks the same tables again inside its transaction.  An unknown move raises and changes nothing.  Layer 0.

A retry is the move `running → accepted`; a request that never becomes a job is rejected and has no state here.
Timeout and cancel lead an attempt to `collecting`, not to its end: evidence first.  Any phase may fall straight
to `cleaning`, because a worker can crash in any of them and a clean-up worker takes over from there.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import TypeVar

from solstice.errors import InternalError


class JobState(StrEnum):
    ACCEPTED = "accepted"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    ERRORED = "errored"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        return not JOB_MOVES[self]


class Phase(StrEnum):
    """Where an attempt stands."""

    PREPARING = "preparing"
    BOOTING = "booting"
    RUNNING = "running"
    COLLECTING = "collecting"
    HELD = "held"
    CLEANING = "cleaning"
    DONE = "done"


S = TypeVar("S", JobState, Phase)
Moves = Mapping[S, frozenset[S]]

JOB_MOVES: Moves[JobState] = {
    JobState.ACCEPTED: frozenset({JobState.RUNNING, JobState.ERRORED, JobState.CANCELLED}),
    JobState.RUNNING: frozenset(
        {
            JobState.ACCEPTED,
            JobState.SUCCEEDED,
            JobState.FAILED,
            JobState.ERRORED,
            JobState.TIMED_OUT,
            JobState.CANCELLED,
        }
    ),
    JobState.SUCCEEDED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.ERRORED: frozenset(),
    JobState.TIMED_OUT: frozenset(),
    JobState.CANCELLED: frozenset(),
}

PHASE_MOVES: Moves[Phase] = {
    Phase.PREPARING: frozenset({Phase.BOOTING, Phase.CLEANING}),
    Phase.BOOTING: frozenset({Phase.RUNNING, Phase.COLLECTING, Phase.CLEANING}),
    Phase.RUNNING: frozenset({Phase.COLLECTING, Phase.CLEANING}),
    Phase.COLLECTING: frozenset({Phase.HELD, Phase.CLEANING}),
    Phase.HELD: frozenset({Phase.CLEANING}),
    Phase.CLEANING: frozenset({Phase.DONE}),
    Phase.DONE: frozenset(),
}


class IllegalMove(InternalError):
    """A move that the tables do not know."""


def move(moves: Moves[S], current: S, target: S) -> S:
    """Return `target` if the table allows it from `current`; raise `IllegalMove` otherwise."""
    if target not in moves[current]:
        allowed = ", ".join(sorted(moves[current])) or "nothing: it is the end"
        raise IllegalMove(f"illegal move {current} → {target}", f"from {current} may follow {allowed}")
    return target


def diagram(moves: Moves[S]) -> str:
    """The table as a Mermaid state diagram; the README's pictures are made by it and held by a test."""
    lines = ["stateDiagram-v2"]
    for source, targets in moves.items():
        lines += [f"    {source} --> {target}" for target in sorted(targets)]
        if not targets:
            lines.append(f"    {source} --> [*]")
    return "\n".join(lines)
