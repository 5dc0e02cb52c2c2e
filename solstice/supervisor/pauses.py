"""What an operator paused, kept over restarts: the next start must not undo what somebody wanted."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from solstice.errors import UsageError
from solstice.host import files
from solstice.supervisor.labels import Labels

_HOST = "*"

log = logging.getLogger(__name__)


def keep(labels: Labels, path: Path) -> None:
    """Write down what is paused.  Raises `UsageError` if that is not possible."""
    names = [*sorted(labels.paused), *([_HOST] if labels.all_paused else [])]
    try:
        files.replace(path, json.dumps(names) + "\n")
    except OSError as error:
        raise UsageError(
            "it holds until the next start only", f"{path}: {error.strerror}", "free space, then repeat it"
        ) from None


def restore(labels: Labels, path: Path) -> None:
    """Pause what was paused at the last end."""
    try:
        names = [str(name) for name in json.loads(path.read_text())]
    except FileNotFoundError:
        return
    except (OSError, ValueError, TypeError) as error:
        log.error("what was paused is not known any more: %s", error, extra={"file": str(path)})
        return
    labels.paused = set(names) - {_HOST}
    labels.all_paused = _HOST in names
    if names:
        log.warning("paused since before this start: %s", ", ".join(names))
