"""Log setup: one event is one line, with the job's id on it.  Layer 2; every process of ours calls `setup` once.

Modules use the standard library as it is:

    log = logging.getLogger(__name__)                       # below "solstice", in programs run by -m too
    log.info("the guest's runner reported", extra={"job": job, "attempt": 1})

What comes in `extra`, and the context given to `setup`, stands behind the message as `key=value`.  Text that others
wrote (a guest, a request, libvirt) belongs into `extra`: there it is quoted, so that it cannot forge a line or a key.
Passwords in URLs are masked on every line.  The stream stays the caller's; nothing is rotated: systemd and SMF do that.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TextIO

from solstice.protocol.urls import mask_url

__all__ = ["mask_url", "setup"]

_PLAIN = re.compile(r"[A-Za-z0-9_./:@%+,*-]+")
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


def setup(level: str, fmt: str, stream: TextIO, **context: object) -> None:
    """Send this process's log to `stream`.

    `level` is debug, info, warning or error and holds for our own loggers; libraries are heard from warning on
    (pika reports every step of a connection as info).  `fmt` is text or json.  `context` goes on every line.
    A second call replaces the first.
    """
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter(context) if fmt == "json" else TextFormatter(context))
    number = logging.getLevelNamesMapping()[level.upper()]
    logging.basicConfig(level=max(number, logging.WARNING), handlers=[handler], force=True)
    logging.getLogger("solstice").setLevel(number)


class _Formatter(logging.Formatter):
    def __init__(self, context: Mapping[str, object]) -> None:
        super().__init__()
        self._context = dict(context)

    def fields(self, record: logging.LogRecord) -> dict[str, object]:
        """The context of one record: the process's, then its own."""
        own = {key: value for key, value in vars(record).items() if key not in _STANDARD}
        return self._context | own

    def trace(self, record: logging.LogRecord) -> str:
        return self.formatException(record.exc_info) if record.exc_info else ""


class TextFormatter(_Formatter):
    """`2026-11-24T08:00:00.123Z info  message job=7f3a91c2`; a traceback follows on indented lines."""

    def format(self, record: logging.LogRecord) -> str:
        words = [_time(record), f"{record.levelname.lower():<5}", _escape(record.getMessage())]
        words += [f"{_escape(key)}={_quote(value)}" for key, value in self.fields(record).items()]
        trace = [f"    | {_escape(line)}" for line in self.trace(record).splitlines()]
        return mask_url("\n".join([" ".join(words), *trace]))


class JsonFormatter(_Formatter):
    """One JSON object a line; the keys `time`, `level`, `logger` and `message` are ours and win over the context's."""

    def format(self, record: logging.LogRecord) -> str:
        document = self.fields(record) | {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": mask_url(record.getMessage()),
        }
        if record.exc_info:
            document["traceback"] = self.trace(record)
        return json.dumps({key: _plain(value) for key, value in document.items()})


def _time(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def _plain(value: object) -> object:
    """A value as JSON has it; what JSON has not, as text."""
    return value if value is None or isinstance(value, bool | int) else mask_url(str(value))


def _quote(value: object) -> str:
    text = str(value)
    if _PLAIN.fullmatch(text):
        return text
    return '"' + _escape(text.replace("\\", "\\\\").replace('"', '\\"')) + '"'


def _escape(text: str) -> str:
    """`text` on one line: whatever does not print (controls, line separators, bidi marks) as a backslash escape."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)
