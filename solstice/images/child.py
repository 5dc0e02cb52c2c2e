"""The images child: keeps every image of the map ready, one after the other, the most urgent first.

The supervisor starts it (`python -m solstice.images`), tells it once which images there are, and hears what became of
them (see `messages`).  A failed image is tried again later and holds up no other; one that a job waits for goes before
the others, and the one that is being pulled gives way to it: what had come of it is on disk.  The child asks a source
again when that is due, and a new version that is to be tested waits for the supervisor's verdict.  It ends when its
stream closes, also in the middle of a download.  It runs no guest and no job.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import threading
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

from setproctitle import setproctitle

from solstice.errors import Cause, InfraError
from solstice.host import clock, files, processes
from solstice.host.channel import Channel, Closed
from solstice.images import messages
from solstice.images.messages import Candidate, Configure, Failed, Idle, NotRefreshed, Progress, Ready, Tested, Wanted
from solstice.images.obtain import Found, Usable, obtain, verdict
from solstice.images.versions import Busy, Shelf
from solstice.model import Image
from solstice.protocol.lines import Message

FIRST_RETRY = 10.0
LONGEST_RETRY = 3600.0
REPORT_EVERY = 1.0
LINGER = 2.0
NEVER = float("inf")
# poll(2) takes its milliseconds in 32 bits, which end at 24 days.
LONGEST_REST = 86400.0


class GivesWay(Exception):
    """A job waits for another image than the one that is being pulled, or the map has changed."""


@dataclass(slots=True)
class Entry:
    """One image and when to look after it next (monotonic).  `look_at` is when to ask its source for a newer version.

    `pin` is the descriptor that keeps the version that was reported as ready.
    """

    image: Image
    due: float = 0.0
    look_at: float = NEVER
    failures: int = 0
    failed_at: float = -NEVER
    urgent: bool = False
    ready: Usable | None = None
    candidate: Usable | None = None
    pin: int = -1

    @property
    def next(self) -> float:
        return min(self.due, self.look_at)

    def release(self) -> None:
        if self.pin >= 0:
            os.close(self.pin)
            self.pin = -1


class Child:
    """The loop, over a channel to the supervisor."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._entries: dict[str, Entry] = {}
        self._at_work: Entry | None = None
        self._verdicts: list[Tested] = []
        self._next_report = 0.0

    def serve(self) -> None:
        """Work until the stream ends.  Raises `Closed` then."""
        self._hear(self._channel.receive())
        while True:
            self._work()
            self._rest()

    def _work(self) -> None:
        while self._verdicts or self._most_urgent():
            # not while they come: it may be in the middle of a look at the same image
            while self._verdicts:
                self._conclude(self._verdicts.pop())
            if entry := self._most_urgent():
                self._look_after(entry)
            self._listen()

    def _most_urgent(self) -> Entry | None:
        """Of what is due: first what a job waits for, then what is not ready, in the order of the map."""
        due = [entry for entry in self._entries.values() if entry.next <= time.monotonic()]
        return min(due, key=lambda entry: (not entry.urgent, entry.ready is not None), default=None)

    def _rest(self) -> None:
        _show("idle")
        self._say(Idle())
        wake = min((entry.next for entry in self._entries.values()), default=NEVER)
        self._hear(self._channel.receive(min(wake, clock.deadline(LONGEST_REST))))

    def _look_after(self, entry: Entry) -> None:
        image, is_refresh = entry.image, entry.due > entry.look_at
        _show(image.name)
        entry.due, entry.look_at = NEVER, NEVER
        self._at_work = entry
        try:
            found = obtain(image, lambda count, size: self._progress(image.name, count, size), refresh=is_refresh)
        except GivesWay:
            entry.due, entry.look_at = (entry.due, 0.0) if is_refresh else (0.0, entry.look_at)
        except InfraError as error:
            self._failed(entry, error)
        except Closed:
            raise
        except Exception as error:  # noqa: BLE001 - a source that we do not master must not stop the other images
            self._failed(entry, _fault(error))
        else:
            self._found(entry, found)
        finally:
            self._at_work = None

    def _found(self, entry: Entry, found: Found) -> None:
        name = entry.image.name
        entry.failures, entry.urgent = 0, False
        if found.look_at is not None:
            entry.look_at = clock.monotonic_at(found.look_at)
        if found.ready is not None and self._pinned(entry, found.ready.path):
            entry.ready = found.ready
            usable = found.ready
            self._say(Ready(name, usable.path, usable.format, usable.virtual_size, usable.digest))
        if found.candidate is not None:
            entry.candidate = usable = found.candidate
            self._say(Candidate(name, usable.path, usable.format, usable.virtual_size))

    def _pinned(self, entry: Entry, path: Path) -> bool:
        """Keep `path` from being pruned, in the place of the version before; False if it has just been."""
        pin = -1
        try:
            pin = files.pin(path)
        except FileNotFoundError:
            entry.due = 0.0
            return False
        except OSError as error:  # a file system without locks: there prune goes by its other reasons alone
            print(f"{path}: cannot be locked: {error.strerror}", file=sys.stderr, flush=True)
        entry.release()
        entry.pin = pin
        return True

    def _failed(self, entry: Entry, error: InfraError) -> None:
        name, refresh = entry.image.name, entry.image.refresh
        entry.failures += 1
        entry.failed_at = time.monotonic()
        delay = backoff(entry.failures)
        if entry.ready is not None and _stands(entry.image, entry.ready):
            entry.look_at = entry.failed_at + delay
            self._say(NotRefreshed(name, error.why, error.remedy, delay))
            return
        entry.ready, entry.urgent = None, False
        entry.release()
        # the smaller: a Retry that came in the middle of this try is still to be done
        entry.due = min(entry.due, entry.failed_at + delay)
        # also of an image whose only version was refused: there may be another one
        entry.look_at = entry.failed_at + refresh if refresh else NEVER
        self._say(Failed(name, error.cause, error.why, error.remedy, delay))

    def _progress(self, name: str, count: int, size: int | None) -> None:
        """Between two pieces of a download: hear the supervisor, and report at most once a second."""
        self._listen()
        self._give_way()
        now = time.monotonic()
        if now < self._next_report:
            return
        self._next_report = now + REPORT_EVERY
        percent = count * 100 // size if size else None
        _show(f"{name} {f'{count >> 20} MiB' if percent is None else f'{percent}%'}")
        self._say(Progress(name, percent, count))

    def _give_way(self) -> None:
        now = time.monotonic()
        at_work = self._at_work
        if at_work is None:
            return
        if self._entries.get(at_work.image.name) is not at_work:
            raise GivesWay  # to what the map says of it now
        is_wanted = any(entry.urgent and entry.due <= now for entry in self._entries.values())
        if is_wanted and not at_work.urgent:
            raise GivesWay

    def _listen(self) -> None:
        """Take the orders that are there.  Raises `Closed` at the end of the stream."""
        for message in self._channel.pending():
            self._hear(message)

    def _hear(self, message: Message | None) -> None:
        if message is None:
            return
        order = messages.order(message)
        if isinstance(order, Configure):
            self._configure(order)
        elif entry := self._entries.get(order.image):
            self._take(entry, order)

    def _configure(self, order: Configure) -> None:
        before, self._entries = self._entries, {image.name: Entry(image) for image in order.images}
        for name, old in before.items():
            new = self._entries.get(name)
            if new is None:
                old.release()
            else:
                new.pin, new.ready = old.pin, old.ready
                old.pin = -1  # what is at work for the old entry must not close it

    def _take(self, entry: Entry, order: messages.Retry | Wanted | Tested) -> None:
        if isinstance(order, Tested):
            self._verdicts.append(order)
        elif isinstance(order, messages.Retry):
            entry.due = 0.0
        elif entry.ready is None:
            entry.urgent = True
            entry.due = min(entry.due, entry.failed_at + FIRST_RETRY)

    def _conclude(self, tested: Tested) -> None:
        entry = self._entries.get(tested.image)
        if entry is None or entry.candidate is None or entry.candidate.path != tested.path:
            return
        entry.candidate = None
        try:
            self._found(entry, verdict(entry.image, tested.path, tested.ok, tested.why))
        except Busy:
            entry.due = time.monotonic() + FIRST_RETRY  # the candidate is found, and tested, again
        except InfraError as error:
            self._failed(entry, error)

    def _say(self, report: messages.Report) -> None:
        self._channel.send(messages.encode(report))


def _stands(image: Image, ready: Usable) -> bool:
    """Whether the version that was reported is still there, and the one to be used."""
    shelf = Shelf(image)
    usable = shelf.usable()
    return usable is not None and shelf.path(usable) == ready.path


def _fault(error: Exception) -> InfraError:
    traceback.print_exception(error, file=sys.stderr)
    return InfraError(Cause.IMAGE, f"a fault of Solstice: {error!r:.200}", "report it with the lines above it")


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
