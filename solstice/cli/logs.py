"""`solstice logs`: what a job printed, or what its console did."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from solstice.cli import client, follow, options
from solstice.lifecycle import JobState


@click.command(short_help="show the log of a job")
@click.argument("job")
@click.option("-f", "--follow", "following", is_flag=True, help="Go on until the job has ended.")
@click.option("--console", is_flag=True, help="The virtual machine's console instead.")
@options.settings("run_dir")
def logs(job: str, following: bool, console: bool, **flags: Any) -> None:
    """Show the log of JOB, an id or the beginning of one."""
    settings = options.loaded(flags)
    found = client.ask(settings.run_dir, "job", job=job)
    name = "console.log" if console else "log"

    def is_over() -> bool:
        state = client.ask(settings.run_dir, "job", job=found["job"]["id"])["job"]["state"]
        return not following or JobState(state).is_terminal

    follow.follow(Path(found["records"]), is_over, name)
