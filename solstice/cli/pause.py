"""`solstice pause [LABEL]`: starts no job of a label, or none at all, also after a restart."""

from __future__ import annotations

from typing import Any

import click

from solstice.cli import client, operators


@click.command(short_help="start no more jobs, of a label or at all")
@click.argument("label", required=False)
@operators.flags
def pause(label: str | None, as_json: bool, **flags: Any) -> None:
    """Start no job of LABEL, or without one no job at all.  What runs goes on, what waits stays."""
    operators.show(client.ask(operators.run_dir(flags), "pause", label=label), as_json, text)


def text(found: dict[str, Any]) -> str:
    """What is paused after a `pause` or a `resume`."""
    paused = [*(["this host"] if found["host"] else []), *found["paused"]]
    return f"paused now: {', '.join(paused) or 'nothing'}"
