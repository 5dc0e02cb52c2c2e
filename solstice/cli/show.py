"""`solstice show JOB`: one job whole: how it ended and what to do then, its attempts, and where their logs are."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import click

from solstice.cli import client, operators
from solstice.cli.table import table
from solstice.cli.words import duration, moment, painted, plain
from solstice.errors import Cause
from solstice.host import clock
from solstice.lifecycle import Phase


@click.command(short_help="show all that is known of one job")
@click.argument("job")
@operators.flags
def show(job: str, as_json: bool, **flags: Any) -> None:
    """Show JOB, an id or the beginning of one: its end and what to do then, its attempts and steps, its logs."""
    found = client.ask(operators.run_dir(flags), "job", job=job)
    operators.show(found, as_json, partial(text, now=clock.wall()))


def text(found: dict[str, Any], now: float) -> str:
    """The answer for people; what goes on does so until `now`, in seconds since the epoch."""
    parts = ["\n".join(_job(found["job"], now))]
    parts += ["\n".join(_attempt(attempt, found["records"], now)) for attempt in found["attempts"]]
    return "\n\n".join(parts)


def _job(job: dict[str, Any], now: float) -> Iterator[str]:
    code = "" if job["exit_code"] is None else f", exit status {job['exit_code']}"
    yield f"job        {job['id']}"
    yield f"state      {painted(job['state'])}{code}"
    yield from _cause(job)
    yield f"label      {plain(job['label'])}" + (f" (image {job['image']})" if job["image"] != job["label"] else "")
    yield from _request(job["request"])
    yield f"accepted   {moment(job['accepted_at'])}"
    if job["started_at"]:
        yield f"started    {moment(job['started_at'])}, after {duration(job['started_at'] - job['accepted_at'])}"
        yield f"{_end(job, job['started_at'], now)}"
    elif job["ended_at"]:
        yield f"{_end(job, job['accepted_at'], now)}"


def _cause(job: dict[str, Any]) -> Iterator[str]:
    if job["cause"]:
        cause = Cause(job["cause"])
        yield f"cause      {cause}: {cause.sentence}"
        yield f"remedy     {cause.remedy}"
    if job["detail"]:
        yield f"detail     {plain(job['detail'])}"


def _request(request: dict[str, Any]) -> Iterator[str]:
    """What of the request tells one job from another; its steps and variables are in the answer's JSON."""
    for name, field in (("size", "size"), ("repository", "repo_url"), ("commit", "commit_sha"), ("ref", "ref")):
        if request.get(field):
            yield f"{name:10} {plain(str(request[field]))}"
    if request.get("concurrency_group"):
        yield f"group      {plain(str(request['concurrency_group']))}"
    yield f"priority   {request.get('priority', '')}"


def _end(job: dict[str, Any], since: float, now: float) -> str:
    if job["ended_at"]:
        return f"ended      {moment(job['ended_at'])}, after {duration(job['ended_at'] - since)}"
    return f"so far     {duration(now - since)}"


def _attempt(attempt: dict[str, Any], records: str, now: float) -> Iterator[str]:
    number = attempt["attempt"]
    uncounted = "" if attempt["counted"] else ", does not count"
    yield f"attempt {number}  on {plain(attempt['host'])} ({attempt['backend']}){uncounted}: {_how(attempt)}"
    yield f"  phases   {_phases(attempt, now)}"
    if attempt.get("image_digest"):
        yield f"  image    {plain(attempt['image_digest'])}"
    yield f"  log      {records}/{number}/log"
    if steps := [(step["name"], str(step["exit_code"]), duration(step["seconds"])) for step in attempt["steps"]]:
        yield "  " + table(("STEP", "EXIT", "TOOK"), steps).replace("\n", "\n  ")


def _how(attempt: dict[str, Any]) -> str:
    if attempt["outcome"] == "accepted":
        return f"put back, {attempt['cause']}: {plain(attempt['detail'])}"
    return painted(attempt["outcome"] or attempt["phase"])


def _phases(attempt: dict[str, Any], now: float) -> str:
    """Each phase with how long it took; the last one of an attempt that goes on until `now`."""
    entered = sorted(attempt["timings"].items(), key=lambda item: item[1])
    until = [*(at for _phase, at in entered[1:]), now]
    took = [
        f"{phase} {duration(end - at)}" for (phase, at), end in zip(entered, until, strict=True) if phase != Phase.DONE
    ]
    return ", ".join(took)
