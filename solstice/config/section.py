"""Reads one mapping of a YAML document, key by key, and refuses whatever does not belong there.

Called by imagemap.  A `Section` knows its place in the file, so every refusal names file, line and key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

from solstice.config.parsers import Bad
from solstice.config.positions import Document
from solstice.errors import ConfigError
from solstice.protocol.places import Place, clip, nearest

E = TypeVar("E", bound=StrEnum)
T = TypeVar("T")

_KINDS = {
    dict: "a mapping",
    list: "a list",
    str: "text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
}


def kind(value: object) -> str:
    """What a YAML value is, in words."""
    return _KINDS.get(type(value), "empty")


@dataclass(frozen=True, slots=True)
class Section:
    """A mapping at `place` of `document`.  Every method raises `ConfigError`."""

    document: Document
    place: Place = ()

    def __post_init__(self) -> None:
        if not isinstance(self.values, dict):
            raise self.document.error(self.place, f"is {kind(self.values)}, not a mapping", "write `key: value` lines")

    @property
    def values(self) -> Any:
        value = self.document.value
        for part in self.place:
            value = value[part]
        return value

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def __iter__(self) -> Iterator[str]:
        return iter(self.values)

    def section(self, key: str) -> Section:
        return Section(self.document, (*self.place, key))

    def only(self, *known: str) -> None:
        """Refuse every key but these."""
        for key in self.values:
            if key not in known:
                raise self.error(key, "unknown key", nearest(key, known))

    def require(self, *keys: str) -> None:
        for key in keys:
            if key not in self.values:
                raise self.document.error(self.place, f"the key {key} is missing", f"add a line `{key}: …`")

    def text(self, key: str, example: str) -> str:
        """A text that is there, is not empty and has no blanks around it."""
        value = self._typed(key, str, f"write text, such as {example}")
        if not value or value != value.strip() or not value.isprintable():
            raise self.error(key, "is empty, or has blanks or controls around it", f"write text, such as {example}")
        return str(value)

    def scalar(self, key: str, example: str) -> str:
        """A text or a number, as text."""
        self.require(key)
        value = self.values[key]
        if type(value) not in (str, int, float):
            raise self.error(key, f"is {kind(value)}, not text or a number", f"write a value, such as {example}")
        return str(value)

    def boolean(self, key: str, default: bool) -> bool:
        return bool(self._typed(key, bool, "write true or false")) if key in self.values else default

    def integer(self, key: str, low: int, high: int) -> int:
        remedy = f"write a whole number from {low} to {high}"
        value = int(self._typed(key, int, remedy))
        if not low <= value <= high:
            raise self.error(key, "is out of range", remedy)
        return value

    def choice(self, key: str, default: E) -> E:
        """One of the values of an enum; `default` where the key is absent."""
        if key not in self.values:
            return default
        choices = [member.value for member in type(default)]
        remedy = f"write one of {', '.join(choices)}"
        value = self._typed(key, str, remedy)
        if value not in choices:
            raise self.error(key, f"{clip(value)} is not known", remedy)
        return type(default)(value)

    def parsed(self, key: str, text: str, parse: Callable[[str], T]) -> T:
        """What a parser of `parsers` makes of the text at `key`."""
        try:
            return parse(text)
        except Bad as bad:
            raise self.error(key, bad.why, bad.remedy) from None

    def error(self, key: str, why: str, remedy: str) -> ConfigError:
        return self.document.error((*self.place, key), why, remedy)

    def _typed(self, key: str, wanted: type, remedy: str) -> Any:
        self.require(key)
        value = self.values[key]
        if type(value) is not wanted:  # an exact match: to isinstance(), true is an int
            raise self.error(key, f"is {kind(value)}, not {_KINDS[wanted]}", remedy)
        return value
