"""Reads the fields of the store's messages by the types that their classes declare.  Used by `protocol.store` alone.

A value of the wrong type is refused, not converted; text is made such that any database takes it.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from typing import Any, NewType, get_type_hints

from solstice.errors import Cause
from solstice.lifecycle import JobState, Phase
from solstice.model import DiskFormat, StepResult

MAX_DETAIL = 16 << 10
MAX_ROWS = 10_000

Document = NewType("Document", dict[str, Any])
Limit = NewType("Limit", int)
Detail = NewType("Detail", str)
"""Free text for people; longer than MAX_DETAIL characters, it is cut and marked, never refused."""

Reader = Callable[[Any], Any]


def fields_of(kind: type[Any]) -> Mapping[str, tuple[Reader, bool]]:
    """Per field of a dataclass: what reads it from JSON, and whether it must be there.

    A reader raises TypeError, ValueError or KeyError with what is wrong.
    """
    hints = get_type_hints(kind)
    return {
        field.name: (_READERS[hints[field.name]], field.default is dataclasses.MISSING)
        for field in dataclasses.fields(kind)
    }


def _text(value: Any) -> str:
    # No database takes half of a surrogate pair, and PostgreSQL no NUL.  Both can come out of a guest by way of
    # `detail`, and an outcome must not be lost for them.
    if not isinstance(value, str):
        raise TypeError("not a string")
    return value.encode(errors="replace").decode().replace("\0", "\ufffd")


def _detail(value: Any) -> str:
    text = _text(value)
    return text if len(text) <= MAX_DETAIL else text[:MAX_DETAIL] + " […]"


def _integer(value: Any) -> int:
    if type(value) is not int or abs(value) >= 1 << 31:
        raise TypeError("not an integer of 32 bits")
    return value


def _limit(value: Any) -> int:
    if not 1 <= _integer(value) <= MAX_ROWS:
        raise ValueError(f"not from 1 to {MAX_ROWS}")
    return int(value)


def _number(value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):
        raise TypeError("not a finite number")
    return float(value)


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError("not true or false")
    return value


def _document(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError("not an object")
    json.dumps(value, allow_nan=False)
    return value


def _steps(value: Any) -> tuple[StepResult, ...]:
    return tuple(
        StepResult(_text(step["name"]), _integer(step["exit_code"]), _number(step["seconds"])) for step in _list(value)
    )


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError("not a list")
    return value


def _optional(read: Reader) -> Reader:
    return lambda value: None if value is None else read(value)


_READERS: Mapping[Any, Reader] = {
    str: _text,
    str | None: _optional(_text),
    Detail: _detail,
    int: _integer,
    Limit: _limit,
    int | None: _optional(_integer),
    float: _number,
    float | None: _optional(_number),
    DiskFormat: DiskFormat,
    bool: _boolean,
    Document: _document,
    JobState: JobState,
    JobState | None: _optional(JobState),
    Phase: Phase,
    Cause: Cause,
    Cause | None: _optional(Cause),
    tuple[str, ...]: lambda value: tuple(_text(item) for item in _list(value)),
    tuple[StepResult, ...]: _steps,
}
