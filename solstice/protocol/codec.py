"""Frozen dataclasses to plain JSON values and back, by their annotations.  No I/O.

Only what our own messages need: dataclasses, enums, paths, tuples, mappings, optionals and JSON's own scalars.
A field that is missing takes its default; an unknown one is ignored, so that the newer of two versions may say more
than the older understands.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from solstice.errors import InternalError

T = TypeVar("T")


class BadMessage(InternalError):
    """A message lacks what its type needs, or has it in another shape."""


def to_plain(value: object) -> Any:
    """The JSON value of `value`."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [to_plain(item) for item in value]
    return value


def from_plain(kind: type[T], value: Any) -> T:
    """The `kind` that `value` describes.  Raises `BadMessage`."""
    try:
        return typing.cast(T, _build(kind, value))
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
        raise BadMessage(f"message does not describe a {kind.__name__}", f"{type(error).__name__}: {error}") from None


def _build(kind: Any, value: Any) -> Any:  # noqa: PLR0911 - one return per kind of type is the table it is
    origin = typing.get_origin(kind)
    if origin in (types.UnionType, typing.Union):
        return None if value is None else _build(typing.get_args(kind)[0], value)
    if origin is tuple:
        return tuple(_build(typing.get_args(kind)[0], item) for item in value)
    if origin is not None:
        item_kind = typing.get_args(kind)[1]
        return {key: _build(item_kind, item) for key, item in value.items()}
    if dataclasses.is_dataclass(kind):
        hints = _hints(typing.cast(Any, kind))
        known = {name: _build(hint, value[name]) for name, hint in hints.items() if name in value}
        return typing.cast(Any, kind)(**known)
    if kind is Any:
        return value
    if issubclass(kind, enum.Enum | Path):
        return kind(value)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise TypeError(f"{kind.__name__} expected, not {type(value).__name__}")
    return value


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind)
