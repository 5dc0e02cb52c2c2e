"""Text from a flag, a variable or the image map to one value.  Called by settings and imagemap.

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

from solstice.protocol.places import clip

E = TypeVar("E", bound=StrEnum)

LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")

# MiB in a unit.
UNITS = {"MiB": 1, "GiB": 1 << 10, "TiB": 1 << 20}

# A week.  poll(2) takes its milliseconds in 32 bits, which end at 24 days.
MAX_SECONDS = 604_800.0
MAX_PER_LABEL = 99_999

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
        value = _decimal(text)
        if not 0 <= value <= MAX_SECONDS or (value == 0 and not zero):
            why = f"{clip(text)} is not a number of seconds from {least} to {MAX_SECONDS:.0f}"
            raise Bad(why, "give seconds without a unit, such as 30 or 2.5")
        return value

    return parse


def ratio(high: int) -> Callable[[str], float]:
    """A number of more than 0 that may have a fraction."""

    def parse(text: str) -> float:
        value = _decimal(text)
        if not 0 < value <= high:
            raise Bad(f"{clip(text)} is not a number from more than 0 to {high}", "give a number, such as 1 or 2.5")
        return value

    return parse


def _decimal(text: str) -> float:
    return float(text) if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text) else math.nan


def amount(low: int, high: int, example: str, unit: str = "MiB") -> Callable[[str], int]:
    """An amount of memory or disk, in MiB as the bounds are: a whole number of `unit` or of a larger one.

    0 needs no unit, where `low` lets it pass.
    """
    units = [name for name in UNITS if UNITS[name] >= UNITS[unit]]
    *smaller, largest = units

    def parse(text: str) -> int:
        match = re.fullmatch(r"(0|[1-9][0-9]{0,6})(MiB|GiB|TiB)", f"0{unit}" if text == "0" else text)
        mebibytes = int(match[1]) * UNITS[match[2]] if match else -1
        if not low <= mebibytes <= high or mebibytes % UNITS[unit]:
            remedy = f"give a whole number of {', '.join(smaller)} or {largest}, such as {example}"
            raise Bad(f"{clip(text)} is not a possible amount", remedy)
        return mebibytes

    return parse


_UNITS_OF_TIME = {"d": 86400, "h": 3600, "min": 60, "s": 1}


def age(text: str) -> float:
    """A long time, such as 30d, in seconds; 0 is one."""
    match = re.fullmatch(rf"([0-9]{{1,6}})({'|'.join(_UNITS_OF_TIME)})", text)
    if match is None and text != "0":
        raise Bad(f"{clip(text)} is no time", f"give a number of {', '.join(_UNITS_OF_TIME)}, such as 30d")
    return float(int(match[1]) * _UNITS_OF_TIME[match[2]]) if match else 0.0


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


def optional_path(text: str) -> Path | None:
    """A path, or an empty text for none."""
    return path(text) if text else None


def capacity(text: str) -> dict[str, int]:
    """`LABEL=N,LABEL=N`; an empty text is a table without limits."""
    table: dict[str, int] = {}
    for pair in text.split(",") if text else []:
        label, _, count = pair.strip().partition("=")
        if not LABEL.fullmatch(label) or not re.fullmatch(r"[0-9]{1,5}", count) or not 1 <= int(count) <= MAX_PER_LABEL:
            raise Bad(
                f"{clip(pair)} is not LABEL=N with N from 1 to {MAX_PER_LABEL}",
                "give pairs, such as ubuntu-22.04=4,debian-12=2",
            )
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
    """The URL of an SQLite file, its path made absolute, or of a database of PostgreSQL.  No message quotes it."""
    prefix = "sqlite:///"
    right = f"give {prefix}/PATH/solstice.db or postgresql://USER:PASSWORD@HOST:PORT/NAME, with signs percent-encoded"
    if _is_postgresql(text):
        return text
    file = text.removeprefix(prefix)
    if file == text or not file or file.startswith(":") or "?" in file or not file.isprintable():
        raise Bad("is the URL of neither an SQLite file nor a PostgreSQL database", right)
    return prefix + str(Path(file).absolute())


def _is_postgresql(text: str) -> bool:
    try:
        url = urlsplit(text)
        sane = text.isprintable() and " " not in text and url.port != 0
    except ValueError:
        return False
    # a password among the options would be shown where that of the URL is masked
    hidden = "password" not in url.query.lower()
    return sane and hidden and url.scheme in ("postgresql", "postgresql+psycopg2") and len(url.path) > 1
