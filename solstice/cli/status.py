"""`solstice status`: the supervisor of this host, what it has to give, and what it does now."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from solstice.cli import client, operators
from solstice.cli.table import table
from solstice.cli.words import duration, painted, plain, short, size


@click.command(short_help="show what this host does now")
@operators.flags
def status(as_json: bool, **flags: Any) -> None:
    """Show the supervisor, its broker, capacity and labels, and every job that has not ended."""
    operators.show(client.ask(operators.run_dir(flags), "status"), as_json, text)


def text(found: dict[str, Any]) -> str:
    """The answer for people: five lines of the host, and a table of each kind; empty tables are left out."""
    return "\n\n".join(["\n".join(_host(found)), *_tables(found)])


def _host(found: dict[str, Any]) -> Iterator[str]:
    yield f"{found['name']}: solstice {found['version']}, pid {found['pid']}, state in {found['state_dir']}"
    if found["paused"]:
        yield f"{painted('paused')}: no job starts (solstice resume)"
    yield f"back end  {found['backend']}{_acceleration(found)}"
    yield f"broker    {painted(found['broker'])}: {plain(found['broker_why'])}"
    yield f"intake    {painted(found['intake'])}"
    yield f"store     {painted(plain(found['store']))}"


def _acceleration(found: dict[str, Any]) -> str:
    if found["backend"] == "noop":
        return " (runs nothing)"
    return f" ({found['domain_type'] or 'it is being found out whether hardware acceleration works'})"


def _tables(found: dict[str, Any]) -> Iterator[str]:
    yield table(("RESOURCE", "TAKEN", "OF", "SETTING"), _capacity(found["capacity"]))
    yield table(("IMAGE", "ALIASES", "TAKEN", "OF", "PENDING", "STATE"), [_label(label) for label in found["labels"]])
    if active := [_active(job) for job in found["active"]]:
        yield table(("JOB", "LABEL", "ATTEMPT", "PHASE", "AGE", "PID", "ENDS BECAUSE"), active)
    if pending := [_pending(job) for job in found["pending"]]:
        more = found["capacity"]["pending"]["used"] - len(pending)
        rest = f"\n… and {more} more" if more > 0 else ""
        yield table(("PLACE", "JOB", "LABEL", "PRIORITY", "AGE", "WAITS FOR"), pending) + rest


def _capacity(capacity: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    slots, booting, cpus = capacity["slots"], capacity["booting"], capacity["cpus"]
    memory, disk, pending = capacity["memory_mib"], capacity["disk_mib"], capacity["pending"]
    yield "slots", str(slots["used"]), str(slots["limit"]), "MAX_CONCURRENCY"
    yield "VMs booting", str(booting["used"]), str(booting["limit"]), "MAX_BOOTING"
    yield "CPUs", f"{cpus['used']:g}", f"{cpus['limit']:g}", "CPU_OVERCOMMIT"
    yield "memory", size(memory["used"]), size(memory["limit"]), "MEMORY_RESERVE"
    room = max(0, disk["free"] - disk["floor"])
    floor = f"DISK_FLOOR: {size(disk['free'])} are free, {size(disk['floor'])} of them kept"
    yield "disk", f"{size(disk['promised'])} promised", size(room), floor
    yield "pending", str(pending["used"]), str(pending["limit"]), "PENDING_LIMIT"


def _label(label: dict[str, Any]) -> tuple[str, ...]:
    name = label["image"]
    aliases = ", ".join(alias for alias in label["labels"] if alias != name)
    state = label["quarantine"] or ("paused" if label["paused"] else label["state"])
    return name, aliases, str(label["used"]), str(label["limit"]), str(label["pending"]), state


def _active(job: dict[str, Any]) -> tuple[str, ...]:
    age, pid = duration(job["seconds"]), str(job["pid"] or "")
    return short(job["job"]), job["label"], str(job["attempt"]), job["phase"], age, pid, job["stopping"] or ""


def _pending(job: dict[str, Any]) -> tuple[str, ...]:
    age, why = duration(job["seconds"]), job["why"] or "its turn"
    return str(job["place"]), short(job["job"]), job["label"], str(job["priority"]), age, why
