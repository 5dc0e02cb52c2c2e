"""`solstice jobs`: the jobs of this host, the newest first."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import click

from solstice.cli import client, options
from solstice.cli.table import table


@click.command(short_help="list the jobs of this host")
@click.option("-n", "--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="How many at most.")
@click.option("--json", "as_json", is_flag=True, help="For programs: the rows as JSON.")
@options.settings("run_dir")
def jobs(limit: int, as_json: bool, **flags: Any) -> None:
    """List the newest jobs of this host with their states."""
    settings = options.loaded(flags)
    rows = client.ask(settings.run_dir, "jobs", limit=limit)
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    head = ("JOB", "LABEL", "STATE", "EXIT", "CAUSE", "ACCEPTED", "SECONDS", "DETAIL")
    click.echo(table(head, [_row(row) for row in rows]))


def _row(row: dict[str, Any]) -> tuple[str, ...]:
    accepted = datetime.fromtimestamp(row["accepted_at"], UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    ran = f"{row['ended_at'] - row['started_at']:.1f}" if row["ended_at"] and row["started_at"] else ""
    code = "" if row["exit_code"] is None else str(row["exit_code"])
    return row["id"][:8], row["label"], row["state"], code, row["cause"] or "", accepted, ran, row["detail"][:60]
