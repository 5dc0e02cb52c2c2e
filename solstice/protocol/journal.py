"""A worker's journal as bytes: what can be read of it, and from where.  Pure; the file itself is host/journal.py's.

Line N, counted from 0, carries number N: a worker that cannot write a line writes none after it either.  The last line
may be torn, because a worker died over it or is writing it now, and counts for nothing.  A whole line that no worker
wrote like this ends what can be read: the lines before it are as they were written, of those after it nobody knows.
"""

from __future__ import annotations

from solstice.errors import InternalError
from solstice.protocol import attach, lines, reports
from solstice.protocol.lines import Message


def parse(data: bytes, name: str, after: int = attach.FROM_THE_START) -> tuple[list[Message], str]:
    """The whole lines with a number above `after`, in order; and what is wrong with the line at which they end.

    That says the file `name`, the line and why; it is "" if nothing is wrong.
    """
    *whole, _torn = data.split(b"\n")
    messages: list[Message] = []
    damage = ""
    for number, line in enumerate(whole):
        try:
            messages.append(_message(line, number))
        except InternalError as error:
            damage = f"{name}:{number + 1}: {error}"
            break
    return messages[after + 1 :], damage


def _message(line: bytes, number: int) -> Message:
    """Raises `BadLine`, `BadMessage`."""
    message = lines.decode(line)
    reports.decode(message)
    if reports.number(message) != number:
        raise InternalError("a gap", f"number {message.get('n')} instead of {number}")
    return message
