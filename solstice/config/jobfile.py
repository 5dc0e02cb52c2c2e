"""A job request written by a person: the fields of jobrequest.v1 in YAML.  Called by `solstice enqueue` and `run`."""

from __future__ import annotations

from pathlib import Path

from solstice.config import positions
from solstice.errors import ConfigError
from solstice.model import JobRequest
from solstice.protocol import jobrequest
from solstice.protocol.places import Place, dotted

_MANUAL = "see solstice-job(5)"


def from_yaml(path: Path) -> JobRequest:
    """The request in a job file; schema_version, request_id and submitted_at are filled in where they are missing.

    Raises `UsageError` if the file cannot be read, `ConfigError` with FILE:LINE if it is wrong.
    """
    document = positions.read(path)
    if not isinstance(document.value, dict):
        raise document.error((), "not a mapping", f"write `key: value` lines; {_MANUAL}")
    try:
        request = jobrequest.validate(jobrequest.completed(document.value))
        jobrequest.encode(request)
    except jobrequest.InvalidRequest as error:
        raise ConfigError(
            document.where(error.place), dotted(error.place), error.reason, _remedy(document, error.place)
        ) from None
    return request


def _remedy(document: positions.Document, place: Place) -> str:
    """YAML makes numbers, truth and emptiness of words; where it did, quotes are the remedy."""
    value = document.value
    for part in place:
        if not isinstance(value, dict | list) or place not in document.lines:
            return _MANUAL
        value = value[part]  # type: ignore[index]
    return f"put the value in quotes if text is meant; {_MANUAL}" if isinstance(value, bool | int | float) else _MANUAL
