"""The flags and words that `enqueue` and `run` make a request of."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Any, TypeVar

import click

from solstice.errors import UsageError

F = TypeVar("F", bound=Callable[..., Any])

_FLAGS = (
    click.option("--runs-on", metavar="LABEL", help="The label to run on; the host's default if not given."),
    click.option("--size", metavar="SIZE", help="A size of the host's image map."),
    click.option("--repo-url", metavar="URL", help="Check this repository out first …"),
    click.option("--commit-sha", metavar="SHA", help="… at exactly this commit."),
    click.option("--ref", metavar="REF", help="The branch or tag of the commit."),
    click.option("--env", "pairs", multiple=True, metavar="NAME=VALUE", help="A variable for each step; repeatable."),
    click.option("--timeout", "timeout_s", type=float, metavar="SECONDS", help="The job's own time limit."),
    click.option("--priority", type=int, metavar="N", help="From 0 to 9, of which 9 comes first; 5 if not given."),
    click.option("--concurrency-group", metavar="NAME", help="Of these jobs of a repository, one at a time runs."),
    # None and not False where it is absent, as the other flags
    click.option("--cancel-in-progress", is_flag=True, default=None, help="Cancel the group's running job."),
)


def flags(command: F) -> F:
    """Give a command the flags that describe a job."""
    for flag in reversed(_FLAGS):
        command = flag(command)
    return command


def the_script(command: tuple[str, ...]) -> dict[str, str]:
    """The one step of a command line: a single word is a shell command, several are one command's words."""
    return {"name": "run", "run": command[0] if len(command) == 1 else shlex.join(command)}


def environment(pairs: tuple[str, ...]) -> dict[str, str]:
    """NAME=VALUE pairs as a mapping.  Raises `UsageError`."""
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise UsageError("--env", f"{pair!r} is not NAME=VALUE", "write --env NAME=VALUE")
        found[name] = value
    return found
