"""`solstice cancel JOB`: ends a job, whether it waits or runs."""

from __future__ import annotations

from typing import Any

import click

from solstice.cli import client, operators
from solstice.cli.words import short


@click.command(short_help="end a job that waits or runs")
@click.argument("job")
@operators.flags
def cancel(job: str, as_json: bool, **flags: Any) -> None:
    """Cancel JOB, an id or the beginning of one.  Its machine is removed as after any other job."""
    operators.show(client.ask(operators.run_dir(flags), "cancel", job=job), as_json, text)


def text(found: dict[str, Any]) -> str:
    was = "waited" if found["state"] == "accepted" else "ran"
    return f"job {short(found['job'])} is being cancelled; it {was}"
