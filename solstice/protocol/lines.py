"""JSON lines: one JSON object per LF-terminated line, the framing between all of Solstice's own processes.

Bytes in, messages out, no I/O.  `Lines.feed` gives back every message that is complete; what is not yet complete
is kept, up to a limit, so that a peer gone mad costs bounded memory.  A torn last line is simply never returned.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from solstice.errors import InternalError

Message = dict[str, Any]

# A dead letter's copy of a body is at most 1 MiB; escaped as JSON it may take six times that.
MAX_LINE = 8 << 20


class BadLine(InternalError):
    """The peer sent something that is not a JSON object on a line of at most `MAX_LINE` bytes."""


def encode(message: Mapping[str, Any]) -> bytes:
    """One message as one line; pure ASCII, so that a line is never split inside a character."""
    return json.dumps(message, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def decode(line: bytes) -> Message:
    """The message on one line.  Raises `BadLine`."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadLine("unreadable line between processes", str(error)) from None
    if not isinstance(message, dict):
        raise BadLine("unreadable line between processes", f"not an object but {type(message).__name__}")
    return message


class Lines:
    """Collects bytes into messages."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[Message]:
        """Every message completed by `data`.  Raises `BadLine`."""
        *whole, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > MAX_LINE:
            raise BadLine("unreadable line between processes", f"longer than {MAX_LINE} bytes")
        return [decode(line) for line in whole if line]
