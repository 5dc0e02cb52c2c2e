"""What every command of an operator has: --run-dir, --json, and an answer of the supervisor in one of two forms.

With --json the answer is printed as it came, one document; without, as its command words it for people.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from solstice.cli import options

F = TypeVar("F", bound=Callable[..., Any])


def flags(command: F) -> F:
    """Give a command --json, as `as_json`, and --run-dir, which `run_dir` reads."""
    as_json = click.option("--json", "as_json", is_flag=True, help="For programs: the answer as JSON.")
    return as_json(options.settings("run_dir")(command))


def run_dir(flags: dict[str, Any]) -> Path:
    """Where the supervisor's control socket is.  Raises `UsageError`."""
    return options.loaded(flags).run_dir


def show(answer: Any, as_json: bool, text: Callable[[Any], str]) -> None:
    """Print an answer; `text` makes what a person reads of it."""
    click.echo(json.dumps(answer, indent=2) if as_json else text(answer))
