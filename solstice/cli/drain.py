"""`solstice drain`: takes nothing new and finishes what was accepted, as before a restart."""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

import click

from solstice.cli import client, exits, operators


@click.command(short_help="take no new jobs, finish what was accepted")
@click.option("--wait", is_flag=True, help="Return when everything that was accepted has ended.")
@operators.flags
def drain(wait: bool, as_json: bool, **flags: Any) -> None:
    """Take no new jobs, and finish those that were accepted; `solstice resume` undoes it.

    Jobs that are paused are not waited for: they stay, also over a restart.
    """
    patience = None if wait else client.TIMEOUT
    try:
        found = client.ask(operators.run_dir(flags), "drain", wait=wait, patience=patience)
    except KeyboardInterrupt:
        click.echo("\nno longer waiting; the host still drains, `solstice resume` undoes it", err=True)
        sys.exit(exits.INTERRUPTED)
    operators.show(found, as_json, partial(text, is_done=wait))


def text(found: dict[str, Any], is_done: bool) -> str:
    if not is_done:
        return f"draining: {found['active']} running, {found['pending']} pending"
    left = f", {found['pending']} that are paused stay" if found["pending"] else ""
    return f"drained: nothing is running{left}"
