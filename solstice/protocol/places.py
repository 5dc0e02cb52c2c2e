"""Words about a place in a document that others wrote: short, on one line, whatever the document holds."""

from __future__ import annotations

import difflib
from collections.abc import Collection

# The keys and list indexes that lead to a value.
Place = tuple[str | int, ...]

_QUOTED = 60


def dotted(place: Place) -> str:
    """A place as people write it: `steps[2].run`."""
    parts = (f"[{part}]" if isinstance(part, int) else "." + clip(part)[1:-1] for part in place)
    return "".join(parts).removeprefix(".")


def clip(text: str) -> str:
    """Foreign text in a message: quoted, shortened, escaped."""
    return ascii(text if len(text) <= _QUOTED else text[:_QUOTED] + "...")


def nearest(word: str, known: Collection[str]) -> str:
    """`did you mean X?`, or all that is known where nothing is near."""
    close = difflib.get_close_matches(word[:_QUOTED], known, 1)
    return f"did you mean {close[0]}?" if close else f"known are {', '.join(sorted(known)) or 'none'}"
