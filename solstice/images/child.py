"""The images child: keeps every image of the map at its place, one after the other, the most urgent first.

The supervisor starts it (`python -m solstice.images`), tells it once which images there are, and hears what became of
them (see `messages`).  A failed image is tried again later and holds up no other.  The child ends when its stream
closes, also in the middle of a download, and owns the cleanup of what it had begun.  It runs no guest and no job.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import threading
import time
from dataclasses import dataclass

from setproctitle import setproctitle

from solstice.errors import InfraError
from solstice.host import processes
from solstice.host.channel import Channel, Closed
from solstice.images import messages
from solstice.images.messages import Configure, Failed, Idle, Progress, Ready
from solstice.images.obtain import obtain
from solstice.model import Image
from solstice.protocol.lines import Message

FIRST_RETRY = 10.0
LONGEST_RETRY = 3600.0
REPORT_EVERY = 1.0
LINGER = 2.0


@dataclass(slots=True)
class Entry:
    """One image and when to look after it next (monotonic; infinity: not at all)."""

    image: Image
    due: float = 0.0
    failures: int = 0


class Child:
    """The loop, over a channel to the supervisor."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._entries: dict[str, Entry] = {}
        self._next_report = 0.0

    def serve(self) -> None:
        """Work until the stream ends.  Raises `Closed` then."""
        self._hear(self._channel.receive())
        while True:
            self._work()
            self._rest()

    def _work(self) -> None:
        while due := [entry for entry in self._entries.values() if entry.due <= time.monotonic()]:
            self._look_after(due[0])
            self._listen()

    def _rest(self) -> None:
        _show("idle")
        self._say(Idle())
        wake = min((entry.due for entry in self._entries.values()), default=math.inf)
        self._hear(self._channel.receive(None if wake == math.inf else wake))

    def _look_after(self, entry: Entry) -> None:
        image = entry.image
        _show(image.name)
        entry.due = math.inf
        try:
            facts = obtain(image, lambda count, size: self._progress(image.name, count, size))
        except InfraError as error:
            entry.failures += 1
            delay = backoff(entry.failures)
            # the smaller: a Retry that came in the middle of this try is still to be done
            entry.due = min(entry.due, time.monotonic() + delay)
            self._say(Failed(image.name, error.cause, error.why, error.remedy, delay))
        else:
            entry.failures = 0
            self._say(Ready(image.name, image.local_path, facts.format, facts.virtual_size))

    def _progress(self, name: str, count: int, size: int | None) -> None:
        """Between two pieces of a download: hear the supervisor, and report at most once a second."""
        self._listen()
        now = time.monotonic()
        if now < self._next_report:
            return
        self._next_report = now + REPORT_EVERY
        percent = count * 100 // size if size else None
        _show(f"{name} {f'{count >> 20} MiB' if percent is None else f'{percent}%'}")
        self._say(Progress(name, percent, count))

    def _listen(self) -> None:
        """Take the orders that are there.  Raises `Closed` at the end of the stream."""
        for message in self._channel.pending():
            self._hear(message)

    def _hear(self, message: Message | None) -> None:
        if message is None:
            return
        order = messages.order(message)
        if isinstance(order, Configure):
            self._entries = {image.name: Entry(image) for image in order.images}
        elif entry := self._entries.get(order.image):
            entry.due = 0.0

    def _say(self, report: messages.Report) -> None:
        self._channel.send(messages.encode(report))


def backoff(failures: int) -> float:
    """Seconds until the next try after so many failures in a row."""
    return min(LONGEST_RETRY, FIRST_RETRY * 2.0 ** min(failures - 1, 16))


def main() -> None:
    """The process: descriptor 0 is the channel."""
    processes.ignore_terminal_signals()
    _show("idle")
    channel = Channel(processes.adopt_stdin())
    threading.Thread(target=_end_with, args=(channel,), daemon=True).start()
    with contextlib.suppress(Closed):
        Child(channel).serve()


def _end_with(channel: Channel) -> None:
    """End the process soon after its stream, whatever the loop is waiting for.

    The loop sees the end between two pieces of a download and cleans up; but a stalled server, a name that does not
    resolve or a hung file system can hold it for a minute.  A poll for nothing wakes for a hang-up only, and reads
    nothing.
    """
    poll = select.poll()
    poll.register(channel, 0)
    poll.poll()
    threading.Event().wait(LINGER)
    os._exit(0)


def _show(state: str) -> None:
    setproctitle(f"solstice: images [{state}]")
