"""`solstice logs`: what a job printed, or what its console did.  Without a supervisor, what the state directory has."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import click

from solstice.cli import client, follow, options
from solstice.config.settings import Settings
from solstice.errors import UsageError
from solstice.host.places import Places
from solstice.lifecycle import JobState


@click.command(short_help="show the log of a job")
@click.argument("job")
@click.option("-f", "--follow", "following", is_flag=True, help="Go on until the job has ended.")
@click.option("--console", is_flag=True, help="The virtual machine's console instead.")
@options.settings(*options.PLACES)
def logs(job: str, following: bool, console: bool, **flags: Any) -> None:
    """Show the log of JOB, an id or the beginning of one."""
    settings = options.loaded(flags)
    name = "console.log" if console else "log"
    try:
        found = client.ask(settings.run_dir, "job", job=job)
    except UsageError as nobody:
        # Nothing runs a job now, so no log grows.
        follow.follow(_on_disk(settings, job, nobody), lambda: True, name)
        return

    def is_over() -> bool:
        state = client.ask(settings.run_dir, "job", job=found["job"]["id"])["job"]["state"]
        return not following or JobState(state).is_terminal

    follow.follow(Path(found["records"]), is_over, name)


def _on_disk(settings: Settings, job: str, nobody: UsageError) -> Path:
    """The one directory of records whose name begins with `job`; raises `nobody` if there is none."""
    records: list[Path] = []
    with contextlib.suppress(OSError):
        records = [
            path for path in Places(settings.state_dir, settings.run_dir).jobs.iterdir() if path.name.startswith(job)
        ]
    if not records:
        raise nobody
    if len(records) > 1:
        raise UsageError(f"job {job}", "more than one job's id begins so", "give more of the id")
    return records[0]
