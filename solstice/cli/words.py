"""How the operator's commands write times, durations, sizes and states.  Said once; knows no command.

Whatever comes from a request or a guest goes through `plain` before it may reach a terminal.  Colour is for terminals:
`click.echo` strips it elsewhere, and NO_COLOR (no-color.org) strips it everywhere.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime

import click

_COLOURS = {
    "green": ("running", "succeeded", "up", "ready", "ok", "taking jobs"),
    "yellow": ("accepted", "preparing", "booting", "collecting", "held", "cleaning", "cancelled", "blocked", "paused"),
    "red": ("failed", "errored", "timed_out", "down"),
}
_UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
_COLOUR_OF = {word: colour for colour, words in _COLOURS.items() for word in words}


def short(job: str) -> str:
    """The beginning of a job's id, as `ps` and every table show it; each command takes it for the whole."""
    return plain(job[:8])


def plain(text: str) -> str:
    """`text` with each control character, which could drive a terminal, as a dot."""
    return "".join(character if character.isprintable() else "·" for character in text)


def painted(word: str) -> str:
    """A state's word in its colour; any other text as it is."""
    colour = _COLOUR_OF.get(word)
    return word if colour is None or os.environ.get("NO_COLOR") else click.style(word, fg=colour)


def moment(at: float) -> str:
    """A time since the epoch, in UTC."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def duration(seconds: float) -> str:
    """Seconds as a person says them: `0.3 s`, `12 s`, `3 min 12 s`, `2 h 5 min`, `3 d 4 h`."""
    if seconds < 9.95:
        return f"{max(0.0, seconds):.1f} s"
    rest = round(seconds)
    parts: list[tuple[int, str]] = []
    for name, length in _UNITS:
        many, rest = divmod(rest, length)
        if many or parts:
            parts.append((many, name))
    return " ".join(f"{many} {name}" for many, name in parts[:2] if many)


def size(mib: int) -> str:
    """MiB as a person says them."""
    return f"{mib} MiB" if mib < 1024 else f"{mib / 1024:.1f} GiB"
