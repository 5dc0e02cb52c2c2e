"""`solstice status`: the supervisor of this host, and what it does now."""

from __future__ import annotations

import json
from typing import Any

import click

from solstice.cli import client, options
from solstice.cli.table import table


@click.command(short_help="show what this host does now")
@click.option("--json", "as_json", is_flag=True, help="For programs: the same as JSON.")
@options.settings("run_dir")
def status(as_json: bool, **flags: Any) -> None:
    """Show the supervisor, its broker and images, and every job that has not ended."""
    settings = options.loaded(flags)
    found = client.ask(settings.run_dir, "status")
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    click.echo(f"solstice {found['version']}, pid {found['pid']}, state in {found['state_dir']}")
    click.echo(f"back end {found['backend']} ({found['domain_type'] or 'probing'}), broker {found['broker']}")
    for name, state in found["images"].items():
        click.echo(f"image {name}: {state}")
    click.echo(f"{len(found['active'])} of {found['capacity']} slots taken, {len(found['pending'])} pending")
    rows = [_active(job) for job in found["active"]] + [_pending(job) for job in found["pending"]]
    if rows:
        click.echo("\n" + table(("JOB", "LABEL", "PHASE", "SECONDS", "PID", "WAITS FOR"), rows))


def _active(job: dict[str, Any]) -> tuple[str, ...]:
    return job["job"][:8], job["label"], job["phase"], f"{job['seconds']:.0f}", str(job["pid"]), ""


def _pending(job: dict[str, Any]) -> tuple[str, ...]:
    return job["job"][:8], job["label"], "pending", "", "", job["why"] or "its turn"
