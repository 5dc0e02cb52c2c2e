"""`solstice why JOB`: what a job waits for, its place, and when it may start; or why it does not wait."""

from __future__ import annotations

from typing import Any

import click

from solstice.cli import client, operators
from solstice.cli.words import duration, plain, short


@click.command(short_help="say what a job waits for")
@click.argument("job")
@operators.flags
def why(job: str, as_json: bool, **flags: Any) -> None:
    """Say which resource JOB waits for, its place among those that wait, and when it may start.

    JOB is an id or the beginning of one.  A job that does not wait is no failure: it is said what it does instead.
    """
    operators.show(client.ask(operators.run_dir(flags), "why", job=job), as_json, text)


def text(found: dict[str, Any]) -> str:
    job = f"job {short(found['job'])}"
    if found["place"] is None:
        return f"{job} ({found['state']}): {plain(found['why'])}"
    return "\n".join(
        [
            f"{job} waits for {_resource(found['resource'])}: {plain(found['why'])}",
            f"place     {found['place']}",
            f"estimate  {_estimate(found['starts_in'])}",
        ]
    )


def _resource(resource: str | None) -> str:
    if resource is None:
        return "nothing"
    return "something else than capacity" if resource == "other" else f"capacity ({resource})"


def _estimate(seconds: float | None) -> str:
    return "no estimate yet" if seconds is None else f"it starts in about {duration(seconds)}"
