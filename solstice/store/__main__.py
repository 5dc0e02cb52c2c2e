"""The store process: `solstice: store [sqlite]`, started by the supervisor with `host.processes.spawn`.

It waits for messages on the channel that is its standard input, carries out all that are there in one transaction,
and answers them.  It ends, with status 0, when the channel closes; what it had begun is finished first.  A database
that fails is reported to whoever asked, again and again if need be: the process stays.
"""

from __future__ import annotations

import os
import re
import sys
from contextlib import ExitStack

import setproctitle
from sqlalchemy.engine import Engine

from solstice.errors import SolsticeError
from solstice.host import racepoints
from solstice.host.channel import Channel, Closed
from solstice.host.processes import adopt_stdin, ignore_terminal_signals
from solstice.model import OWNER_DIGITS
from solstice.protocol.lines import Message
from solstice.protocol.store import bad_request
from solstice.store.engine import opened
from solstice.store.group import answer, refusal


def main() -> int:
    """Serve until the channel closes; the exit status."""
    ignore_terminal_signals()
    # requests may hold what their senders would not show to every user of the host
    os.umask(0o077)
    setproctitle.setproctitle("solstice: store")
    channel = Channel(adopt_stdin())
    try:
        with ExitStack() as stack:
            engine = None
            while engine is None:
                engine = _configure(channel, stack)
            while True:
                for reply in answer(engine, _waiting(channel)):
                    channel.send(reply)
                racepoints.reach("store.reply.after")
    except Closed:
        return 0
    except SolsticeError as error:
        sys.stderr.write(f"solstice: store: {error}\n")
        return error.exit_code


def _waiting(channel: Channel) -> list[Message]:
    """Every message that is there, once there is one.  Raises `Closed` when there never will be."""
    # no deadline: the supervisor asks when it has something to ask, or closes
    message = channel.receive()
    messages = []
    try:
        while message is not None:
            messages.append(message)
            message = channel.receive(deadline=0.0)
    except Closed:
        # these are carried out all the same; the next call raises it again
        pass
    return messages


def _configure(channel: Channel, stack: ExitStack) -> Engine | None:
    """Answer one message; the engine, which `stack` closes, if it was a `configure` that could be followed.

    Raises `Closed`.
    """
    message = channel.receive()
    if message is None:
        return None
    try:
        url, owner = _configuration(message)
        upgrading = {"id": message.get("id"), "upgrading": True}
        engine = stack.enter_context(opened(url, owner=owner, on_upgrade=lambda: channel.send(upgrading)))
    except SolsticeError as error:
        channel.send(refusal(message, error))
        return None
    setproctitle.setproctitle(f"solstice: store [{engine.dialect.name}]")
    channel.send({"id": message.get("id"), "ok": True, "result": {}})
    return engine


def _configuration(message: Message) -> tuple[str, str]:
    url, host = message.get("url"), message.get("host")
    if message.get("op") != "configure" or not isinstance(url, str):
        raise bad_request("the first message is configure, with a url")
    if not isinstance(host, str) or not re.fullmatch(rf"[0-9a-f]{{{OWNER_DIGITS}}}", host):
        raise bad_request("the first message has the host, by its owner id")
    return url, host


if __name__ == "__main__":
    sys.exit(main())
