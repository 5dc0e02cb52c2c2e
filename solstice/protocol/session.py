"""What a worker and its session tell each other.  The session reads the guest; the worker decides.

Worker to session: `begin` once (with the request, or none for a VM that is only watched), later at most `cancel`.
Session to worker: `Told` events, in the order in which they happened in the guest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from solstice.model import JobRequest
from solstice.protocol.codec import BadMessage, from_plain, to_plain
from solstice.protocol.lines import Message

CHECKOUT = -1
"""The index of the checkout among a job's steps."""


class Event(StrEnum):
    KERNEL = "kernel"
    """The console shows words that only a running kernel prints."""
    HELLO = "hello"
    """The runner reported for the first time."""
    STEP_STARTED = "step_started"
    """The guest was told to begin a step."""
    STEP_BEGAN = "step_began"
    """The guest says that it does; once for each step, or never."""
    STEP_ENDED = "step_ended"
    FINISHED = "finished"
    """All that the steps printed is in the log, and the runner waits for nothing more."""
    REBOOTED = "rebooted"
    GONE = "gone"
    """The VM has closed its console: it is no more."""


@dataclass(frozen=True, slots=True)
class Told:
    """`index` and `exit_code` are set for a step's events; the checkout has index `CHECKOUT`.

    `guest_at` is when it was by the guest's own clock, in whole seconds since the epoch; None if it does not say.
    """

    event: Event
    index: int = 0
    exit_code: int = 0
    guest_at: int | None = None


@dataclass(frozen=True, slots=True)
class Begin:
    """`peers` are the user ids that may connect; `environment` goes to every step, below the step's own."""

    peers: tuple[int, ...]
    request: JobRequest | None = None
    environment: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Cancel:
    pass


def encode(message: Told | Begin | Cancel) -> dict[str, Any]:
    return {"type": type(message).__name__.lower(), "body": to_plain(message)}


def decode_for_session(message: Message) -> Begin | Cancel:
    """Raises `BadMessage`."""
    if message.get("type") == "begin":
        return from_plain(Begin, message.get("body"))
    if message.get("type") == "cancel":
        return Cancel()
    raise BadMessage("not a message that a session knows", str(message.get("type")))


def decode_for_worker(message: Message) -> Told:
    """Raises `BadMessage`."""
    return from_plain(Told, message.get("body"))
