"""`solstice jobs`: the jobs of this host, the newest first."""

from __future__ import annotations

from typing import Any

import click

from solstice.cli import client, operators
from solstice.cli.table import table
from solstice.cli.words import moment, short
from solstice.lifecycle import JobState

_HEAD = ("JOB", "LABEL", "STATE", "EXIT", "CAUSE", "ACCEPTED", "SECONDS", "DETAIL")


@click.command(short_help="list the jobs of this host")
@click.option("-n", "--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="How many at most.")
@click.option("--state", type=click.Choice([state.value for state in JobState]), help="Only those in this state.")
@operators.flags
def jobs(limit: int, state: str | None, as_json: bool, **flags: Any) -> None:
    """List the newest jobs of this host with their states."""
    operators.show(client.ask(operators.run_dir(flags), "jobs", limit=limit, state=state), as_json, text)


def text(rows: list[dict[str, Any]]) -> str:
    return table(_HEAD, [_row(row) for row in rows])


def _row(row: dict[str, Any]) -> tuple[str, ...]:
    ran = f"{row['ended_at'] - row['started_at']:.1f}" if row["ended_at"] and row["started_at"] else ""
    code = "" if row["exit_code"] is None else str(row["exit_code"])
    cause, accepted = row["cause"] or "", moment(row["accepted_at"])
    return short(row["id"]), row["label"], row["state"], code, cause, accepted, ran, row["detail"][:60]
