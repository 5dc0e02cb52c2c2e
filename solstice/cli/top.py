"""`solstice top`: status again and again, until Ctrl-C.

On a terminal it is drawn over itself on the alternate screen, which is left in any case; elsewhere, and with a number
of --iterations, one snapshot follows the other.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from typing import Any

import click

from solstice.cli import client, follow, operators, status
from solstice.cli.words import moment
from solstice.host import clock

# No line is wrapped meanwhile: a long one must not push the others down.
_ENTER = "\x1b[?1049h\x1b[?25l\x1b[?7l"
_LEAVE = "\x1b[?7h\x1b[?25h\x1b[?1049l"
_HOME, _REST_OF_LINE, _REST_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"
_TERMINATED = 128 + signal.SIGTERM


@click.command(short_help="show live what this host does")
@click.option(
    "--interval",
    type=click.FloatRange(min=0.1),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="From one look to the next.",
)
@click.option("--iterations", type=click.IntRange(min=1), metavar="N", help="End after so many looks.")
@operators.flags
def top(interval: float, iterations: int | None, as_json: bool, **flags: Any) -> None:
    """Show `solstice status` live until Ctrl-C; with --json one object a line for each look."""
    run_dir = operators.run_dir(flags)
    is_live = sys.stdout.isatty() and iterations is None and not as_json
    looks = range(iterations) if iterations else itertools.count()
    screen = _screen() if is_live else contextlib.nullcontext()
    with follow.reader_may_leave(), contextlib.suppress(KeyboardInterrupt), screen:
        for look in looks:
            if look:
                time.sleep(interval)
            found = client.ask(run_dir, "status")
            if as_json:
                click.echo(json.dumps(found, separators=(",", ":")))
            elif is_live:
                click.echo(_drawn(_snapshot(found)), nl=False)
            else:
                click.echo(("\n" if look else "") + _snapshot(found))


def _snapshot(found: dict[str, Any]) -> str:
    return f"{moment(clock.wall())}  {status.text(found)}"


def _drawn(text: str) -> str:
    """`text` over what is on the screen, as much as there is room for."""
    room = shutil.get_terminal_size().lines
    lines = [_REST_OF_LINE + line for line in text.splitlines()[:room]]
    return _HOME + "\n".join(lines) + _REST_OF_SCREEN


@contextlib.contextmanager
def _screen() -> Iterator[None]:
    """The alternate screen, left again after a SIGTERM too."""
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(_TERMINATED))
    click.echo(_ENTER, nl=False)
    try:
        yield
    finally:
        click.echo(_LEAVE, nl=False)
