"""Text from a flag or a variable to one value.  Called by settings alone.

Every parser takes the text and returns the value, or raises `Bad` with what is wrong and what would be right; the
caller knows where the text came from and adds that.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from solstice.config.imagemap import LABEL
from solstice.protocol.places import clip

E = TypeVar("E", bound=StrEnum)

# A week.  poll(2) takes its milliseconds in 32 bits, which end at 24 days.
MAX_SECONDS = 604_800.0

_MAX_SHORTSTR = 255


class Bad(Exception):
    """A text that is not a value of its setting."""

    def __init__(self, why: str, remedy: str) -> None:
        super().__init__(why, remedy)
        self.why = why
        self.remedy = remedy


def integer(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", text) or not low <= int(text) <= high:
            raise Bad(f"{clip(text)} is not a whole number from {low} to {high}", f"give a number, such as {low}")
        return int(text)

    return parse


def seconds(*, zero: bool = False) -> Callable[[str], float]:
    """A duration; `zero` says whether 0 is one."""
    least = "0" if zero else "more than 0"

    def parse(text: str) -> float:
        value = float(text) if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text) else math.nan
        if not 0 <= value <= MAX_SECONDS or (value == 0 and not zero):
            why = f"{clip(text)} is not a number of seconds from {least} to {MAX_SECONDS:.0f}"
            raise Bad(why, "give seconds without a unit, such as 30 or 2.5")
        return value

    return parse


def choice(enum: type[E]) -> Callable[[str], E]:
    def parse(text: str) -> E:
        try:
            return enum(text)
        except ValueError:
            raise Bad(f"{clip(text)} is not known", f"give one of {', '.join(enum)}") from None

    return parse


def line(example: str) -> Callable[[str], str]:
    """Text on one line, as AMQP and libvirt take for a name: at most 255 bytes."""

    def parse(text: str) -> str:
        if not text.strip() or not text.isprintable() or len(text.encode(errors="replace")) > _MAX_SHORTSTR:
            why = f"{clip(text)} is empty, longer than {_MAX_SHORTSTR} bytes, or holds control characters"
            raise Bad(why, f"give a name, such as {example}")
        return text

    return parse


def path(text: str) -> Path:
    """A path, made absolute here: children have other working directories."""
    if not text or not text.isprintable():
        raise Bad(f"{clip(text)} is not a path", "give the path of a file or directory")
    return Path(text).absolute()


def capacity(text: str) -> dict[str, int]:
    """`LABEL=N,LABEL=N`; an empty text is a table without limits."""
    table: dict[str, int] = {}
    for pair in text.split(",") if text else []:
        label, _, count = pair.strip().partition("=")
        if not LABEL.fullmatch(label) or not re.fullmatch(r"[1-9][0-9]{0,4}", count):
            raise Bad(f"{clip(pair)} is not LABEL=N with N from 1", "give pairs, such as ubuntu-22.04=4,debian-12=2")
        if label in table:
            raise Bad(f"the label {label} is there twice", "give each label once")
        table[label] = int(count)
    return table


def amqp_url(text: str) -> str:
    """The broker's URL.  Its password may stand in the text, so no message quotes it."""
    right = "give amqp://USER:PASSWORD@HOST:PORT/VHOST, with %2F for the vhost / and other signs percent-encoded too"
    try:
        url = urlsplit(text)
        complete = url.scheme in ("amqp", "amqps") and bool(url.hostname) and url.port != 0
    except ValueError:
        complete = False
    if not complete or not text.isprintable() or " " in text:
        raise Bad("is not an AMQP URL", right)
    return text


def database_url(text: str) -> str:
    """An SQLite file's URL, its path made absolute.  Others hold passwords, so no message quotes the text."""
    prefix = "sqlite:///"
    file = text.removeprefix(prefix)
    if file == text or not file or file.startswith(":") or "?" in file or not file.isprintable():
        raise Bad("is not the URL of an SQLite file, the only database there is yet", f"give {prefix}/PATH/solstice.db")
    return prefix + str(Path(file).absolute())
