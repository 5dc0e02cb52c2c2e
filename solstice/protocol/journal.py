"""A worker's journal as bytes: what can be read of it, and from where.  Pure; the file itself is host/journal.py's.

Line N, counted from 0, carries number N: a worker that cannot write a line writes none after it either.  The last line
may be torn, because a worker died over it or is writing it now, and counts for nothing.
"""

from __future__ import annotations

from solstice.errors import InternalError
from solstice.protocol import attach, lines
from solstice.protocol.lines import Message


class BadJournal(InternalError):
    """A journal with a whole line that nobody wrote like this; the message has file and line."""


def parse(data: bytes, name: str, after: int = attach.FROM_THE_START) -> list[Message]:
    """Every whole line with a number above `after`, in order.  Raises `BadJournal`; `name` is the file's."""
    *whole, _torn = data.split(b"\n")
    messages = [_message(line, number, name) for number, line in enumerate(whole)]
    return messages[after + 1 :]


def _message(line: bytes, number: int, name: str) -> Message:
    where = f"{name}:{number + 1}"
    try:
        message = lines.decode(line)
    except lines.BadLine as error:
        raise BadJournal(f"{where}: unreadable line in a worker's journal", error.why) from None
    if message.get("n") != number or type(message["n"]) is not int:
        raise BadJournal(f"{where}: a gap in a worker's journal", f"number {message.get('n')} instead of {number}")
    return message
