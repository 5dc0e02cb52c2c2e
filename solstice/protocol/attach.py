"""How a supervisor takes over a worker that it did not start: what lies in the record's directory, and the first line.

    RECORD/events.jsonl    the worker's journal: each of its reports on a line, written before it is said; a damaged one
                           is kept as events.jsonl.bad when the attempt is done, for a person and for nothing else
    RECORD/worker.sock     where it listens, from before its first report until its end
    RECORD/closed          a supervisor has given the attempt up, as nobody listened: no worker begins it any more

The supervisor connects and sends `{"v":1,"type":"attach","after":N}`.  The worker answers with every line of its
journal whose number is above N (-1: all of them) and goes on with what it reports from then on; stop orders are taken
from this connection alone.  The newest attach wins: the connection before it, a pipe or not, is closed, and what it was
not told comes here.  A connection that ends costs nothing: the journal has all that the worker said.  A worker inside a
call to its hypervisor answers when that returns.  Once the journal has its first line, a socket that is missing or
refuses means that nobody is behind it any more, and that the journal is complete; a cleaner or a sweep removes it.

Before that line a worker may still come: its fork waits in a fork server that is stopped, or it is stopped itself.  So
a supervisor that found nobody makes `closed` and tries once more, and a worker listens and then looks for `closed`: in
whatever order that happens, either they meet or the worker ends without having touched anything.

Versions.  `order.VERSION`, `reports.VERSION` and `VERSION` here are three numbers of one contract between a
supervisor and workers of the version before.  Without raising one may be added
    a field with a default: who does not know it ignores it (codec.py);
    a kind of report: who does not know it keeps its number (`reports.Unknown`);
    a kind of message to a busy worker: who does not know it ignores it.
Anything else raises the number: a field without a default, another meaning or shape of a field, another value of an
enum (a phase, a cause), a kind that must not be ignored.  Whoever raises `reports.VERSION` keeps the one before in
`reports.READABLE`, and speaks to a worker in the version `v` of its journal's first line.
"""

from __future__ import annotations

from typing import Any

from solstice.protocol.codec import BadMessage, from_plain
from solstice.protocol.lines import Message

VERSION = 1
JOURNAL = "events.jsonl"
SOCKET = "worker.sock"
CLOSED = "closed"
# `after` of a supervisor that knows nothing yet: the first number is 0.
FROM_THE_START = -1

_TYPE = "attach"


def encode(after: int) -> dict[str, Any]:
    """`after` is the last number that the supervisor has; at most that of the worker's last report."""
    return {"v": VERSION, "type": _TYPE, "after": after}


def decode(message: Message) -> int:
    """After which number the supervisor wants to hear.  Raises `BadMessage`."""
    if message.get("v") != VERSION or message.get("type") != _TYPE:
        raise BadMessage("not an attach that this worker knows", f"v={message.get('v')} type={message.get('type')}")
    after = from_plain(int, message.get("after"))
    if after < FROM_THE_START:
        raise BadMessage("not an attach that this worker knows", f"after={after}")
    return after
