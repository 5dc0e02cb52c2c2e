"""The entry: `solstice COMMAND`.  Here, and only here, an error becomes a line of text and an exit code.

No traceback reaches a user; a fault of Solstice itself is said to be one, and shows its traceback with LOG_LEVEL=debug.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from typing import Any

import click

from solstice import __version__
from solstice.cli import exits
from solstice.cli.follow import reader_may_leave
from solstice.errors import InternalError, SolsticeError

_COMMANDS = (
    "cancel",
    "db",
    "dead-letters",
    "drain",
    "enqueue",
    "images",
    "jobs",
    "logs",
    "pause",
    "resume",
    "run",
    "serve",
    "show",
    "status",
    "top",
    "why",
)


class _Lazy(click.Group):
    """Imports a command when it is used: `solstice jobs` need not wait for the broker's and supervisor's modules."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        name = cmd_name.replace("-", "_")
        command: click.Command = getattr(importlib.import_module(f"solstice.cli.{name}"), name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """A reader that leaves our output early, as `head` does, is no error."""
        with reader_may_leave():
            return super().invoke(ctx)


@click.command(cls=_Lazy)
@click.version_option(__version__, prog_name="solstice")
def solstice() -> None:
    """A fresh virtual machine for each CI job, on this host."""


def main() -> None:
    """Run the command line and exit."""
    try:
        status: Any = solstice.main(prog_name="solstice", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(exits.INTERRUPTED)
    except SolsticeError as error:
        click.echo(f"solstice: {error}", err=True)
        sys.exit(error.exit_code)
    except Exception as error:  # noqa: BLE001 - the last frame before the user
        _own_fault(error)
    sys.exit(status if isinstance(status, int) else 0)


def _own_fault(error: Exception) -> None:
    text = f"{type(error).__name__}: {error}"
    click.echo(
        f"solstice: a fault of Solstice itself: {text} (LOG_LEVEL=debug shows where; please report it)", err=True
    )
    if os.environ.get("LOG_LEVEL", "").lower() == "debug":
        traceback.print_exception(error)
    sys.exit(InternalError.exit_code)
