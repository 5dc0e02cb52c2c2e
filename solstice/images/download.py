"""One http source into its part: conditional, resumed, and tried again while that is worth it.

`pipeline` runs it in a thread of its own, while others read from the intake what has come.
"""

from __future__ import annotations

import re

from solstice.errors import Cause, InfraError
from solstice.images import fetch
from solstice.images.fetch import Answer, Broken
from solstice.images.intake import Intake, Spoiled
from solstice.images.part import Part, Record
from solstice.protocol.urls import mask_url

TRIES = 5  # in a row, without getting further
FIRST_WAIT = 1.0
LONGEST_WAIT = 30.0  # a server that asks for more is left to the child's own, longer back-off
WORTHWHILE = 1 << 20  # bytes that make a try count as getting further

_RANGE = re.compile(r"bytes (\d{1,19})-\d{1,19}/(\d{1,19})")


class Changed(Exception):
    """The source is not any more what the others have begun to read: they must begin anew, and find an empty part."""


class Unchanged(Exception):
    """The source is still what the caller knows."""


class Download:
    """`known` are conditions to ask with first, as headers; `limit` is how many bytes are too many."""

    def __init__(self, url: str, part: Part, intake: Intake, known: dict[str, str], limit: int) -> None:
        self._url = url
        self._part = part
        self._intake = intake
        self._known = known
        self._limit = limit
        self._answer: Answer | None = None

    def run(self) -> None:
        """Return when all has come.  Raises `Changed`, `Unchanged`, `Ended`, `InfraError`, `OSError` of the part."""
        failures = 0
        while True:
            before = self._intake.size
            try:
                self._try()
            except Broken as error:
                failures = 1 if self._intake.size - before >= WORTHWHILE else failures + 1
                wait = max(error.after, min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** (failures - 1)))
                if failures == TRIES or wait > LONGEST_WAIT:
                    raise _given_up(error, failures) from None
                self._intake.wait(wait)
            else:
                self._intake.finish()
                return

    def abort(self) -> None:
        """End `run` soon, from another thread, once the intake is over."""
        if self._answer is not None:
            self._answer.abort()

    def _try(self) -> None:
        start, headers = self._question()
        with fetch.opened(self._url, headers) as answer:
            self._answer = answer
            self._intake.touch()  # from here on `abort` reaches it
            end = self._place(answer, start)
            for chunk in answer.chunks:
                self._intake.check()  # when it is over, the part is perhaps another pull's
                end = self._part.write(end, chunk)
                if end > self._limit:
                    raise _too_much(self._url, self._limit)
                self._intake.grow(end)
            fetch.check_end(self._url, end, self._intake.total)

    def _question(self) -> tuple[int, dict[str, str]]:
        """From where to ask on, and the headers for it."""
        known = {} if self._intake.size else self._known
        record, size = self._part.record, self._part.size
        if record is None or not record.validator or record.length is None or not size:
            return 0, known
        # Of what is whole already the last byte is asked for: no range at all would be answered by an error.
        start = min(size, record.length - 1)
        return start, {**known, "Range": f"bytes={start}-", "If-Range": record.validator}

    def _place(self, answer: Answer, start: int) -> int:
        """Where the bytes of this answer go.  Makes those before readable, or the part empty."""
        if answer.status == 304:
            raise Unchanged
        if answer.status == 200 and not self._intake.size:
            return self._begin(answer)
        record = self._part.record
        if record is None or not _continues(answer, start, record):
            self._part.clear()
            raise Changed
        self._intake.total = record.length
        self._intake.grow(self._part.size)
        return start

    def _begin(self, answer: Answer) -> int:
        length = answer.length
        if length is not None and length > self._limit:
            raise _too_much(self._url, self._limit)
        headers = answer.headers
        self._part.begin(Record(mask_url(self._url), headers.get("ETag", ""), headers.get("Last-Modified", ""), length))
        self._intake.total = length
        return 0


def _continues(answer: Answer, start: int, record: Record) -> bool:
    """Whether this is the rest of what the record speaks of.  Not all servers heed If-Range, so all is looked at."""
    place = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
    if answer.status != 206 or place is None or (int(place[1]), int(place[2])) != (start, record.length):
        return False
    states = ((record.etag, "ETag"), (record.modified, "Last-Modified"))
    return all(not state or answer.headers.get(name, state) == state for state, name in states)


def _given_up(error: Broken, failures: int) -> InfraError:
    if error.after > LONGEST_WAIT:
        return InfraError(Cause.IMAGE, f"{error.why}, and asks to wait {error.after:.0f} s", error.remedy)
    return InfraError(Cause.IMAGE, f"{error.why}, {failures} times in a row", error.remedy)


def _too_much(url: str, limit: int) -> Spoiled:
    why = f"{mask_url(url)}: the source has more than {limit} bytes"
    return Spoiled(why, "check `source`, or raise `max_size` in the image map")
