"""`solstice resume [LABEL]`: undoes a pause, a label's quarantine, the host's drain."""

from __future__ import annotations

from typing import Any

import click

from solstice.cli import client, operators
from solstice.cli.pause import text


@click.command(short_help="start jobs again, of a label or of the host")
@click.argument("label", required=False)
@operators.flags
def resume(label: str | None, as_json: bool, **flags: Any) -> None:
    """Start jobs of LABEL again, though it was paused or in quarantine; without one, undo the host's pause and drain.

    Labels that were paused by name stay so until they are resumed by name.
    """
    operators.show(client.ask(operators.run_dir(flags), "resume", label=label), as_json, text)
