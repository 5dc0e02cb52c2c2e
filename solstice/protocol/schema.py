"""JSON Schema (2020-12), made strict, and its findings made sentences.  Called by the public documents beside it.

Three things are stricter than the library: `$` in a pattern ends the text, a number is finite, a string is Unicode.
A finding has the place and a reason made of the keyword that failed and the `description` beside it, so every part of
a schema that restricts something has a description that completes "must be …".  Values are never quoted: they may be
secrets, and as large as the document; names of keys are, shortened.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jsonschema

from solstice.protocol.places import Place, clip, nearest


@dataclass(frozen=True, slots=True)
class Finding:
    """What does not fit: the keys and list indexes that lead to it, and why."""

    place: Place
    reason: str


class Schema:
    """One schema, compiled once."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.document = document
        self._validator = _STRICT(document)

    def check(self, document: object) -> Finding | None:
        """The first thing in `document` that does not fit, or None.  Raises `RecursionError` for absurd nesting."""
        error = next(self._validator.iter_errors(document), None)
        return None if error is None else _explained(error)


def _pattern(_: object, pattern: str, instance: object, __: object) -> Iterator[jsonschema.ValidationError]:
    """In JSON Schema `$` ends the text; in Python it lets one more newline pass."""
    if isinstance(instance, str) and not re.search(pattern.removesuffix("$") + r"\Z", instance):
        yield jsonschema.ValidationError("does not fit")


def _is_unicode(_: object, instance: object) -> bool:
    """JSON can escape half a surrogate pair; no UTF-8 file, socket or database takes it."""
    if not isinstance(instance, str):
        return False
    try:
        instance.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_finite(_: object, instance: object) -> bool:
    return type(instance) is int or (type(instance) is float and math.isfinite(instance))


# The library has no annotations for this in every version that we support.
_extend: Any = jsonschema.validators.extend
_STRICT = _extend(
    jsonschema.Draft202012Validator,
    validators={"pattern": _pattern},
    type_checker=jsonschema.Draft202012Validator.TYPE_CHECKER.redefine_many(
        {"string": _is_unicode, "number": _is_finite}
    ),
)


def _explained(error: Any) -> Finding:
    place, instance, schema, value = tuple(error.absolute_path), error.instance, error.schema, error.validator_value
    match error.validator:
        case "required":
            missing = next(key for key in value if key not in instance)
            return Finding((*place, missing), "is missing")
        case "dependentRequired":
            pairs = ((given, needed) for given, keys in value.items() if given in instance for needed in keys)
            given, missing = next(pair for pair in pairs if pair[1] not in instance)
            return Finding((*place, missing), f"is missing, and {given} needs it")
        case "additionalProperties":
            unknown = min(key for key in instance if key not in schema["properties"])
            return Finding((*place, unknown), f"unknown key, {nearest(unknown, schema['properties'])}")
        case "type":
            return Finding(place, f"is {_kind(instance)}, must be {schema['description']}")
        case _ if "propertyNames" in error.absolute_schema_path:
            return Finding(place, f"the key {clip(instance)} must be {schema['description']}")
        case _:
            return Finding(place, f"must be {schema['description']}")


def _kind(value: object) -> str:
    if isinstance(value, str):
        return "text" if _is_unicode(None, value) else "text with half a surrogate pair in it"
    if isinstance(value, float) and not math.isfinite(value):
        return "not a finite number"
    names = {dict: "an object", list: "a list", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
