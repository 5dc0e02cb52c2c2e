"""`solstice run`: one job on this machine, with no broker, by the same supervisor and worker."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from solstice import logs
from solstice.cli import exits, follow, options
from solstice.cli.request import environment, the_script
from solstice.cli.request import flags as request_flags
from solstice.cli.service import obey_signals
from solstice.config import configuration
from solstice.config.settings import Settings
from solstice.errors import Cause
from solstice.host import files
from solstice.hypervisors import router
from solstice.model import JobRequest, Outcome
from solstice.protocol import jobrequest
from solstice.supervisor.core import Interrupted, Supervisor


@click.command(short_help="run one job on this machine, without a broker")
@request_flags
@options.settings(*options.GUESTS, "run_dir", *options.LOGGING)
@click.argument("command", nargs=-1, required=True)
def run(command: tuple[str, ...], pairs: tuple[str, ...], **flags: Any) -> None:
    """Run COMMAND in a fresh virtual machine and show its output.

    The exit code is the command's own; 124 timed out, 75 the infrastructure failed, 130 interrupted.
    """
    # What is printed is the job's; the supervisor speaks up only if something is wrong.
    if flags["log_level"] is None and "LOG_LEVEL" not in os.environ:
        flags["log_level"] = "warning"
    config = configuration.read(options.taken(flags), os.environ)
    settings = config.settings
    logs.setup(settings.log_level, settings.log_format, sys.stderr)
    backend = router.choose(settings.backend)
    request = jobrequest.new_request(steps=[the_script(command)], env=environment(pairs), **flags)
    own = _own_state(settings)
    supervisor = Supervisor(replace(config, settings=own), backend)
    try:
        outcome = asyncio.run(_run(supervisor, request))
    finally:
        _forget(supervisor, own.state_dir)
    if outcome is None or outcome.cause is not None:
        click.echo(f"solstice: {_verdict(outcome)}", err=True)
    sys.exit(exits.INTERRUPTED if outcome is None else exits.exit_code(outcome.state, outcome.exit_code))


async def _run(supervisor: Supervisor, request: JobRequest) -> Outcome | None:
    obey_signals(supervisor, is_service=False)
    over = threading.Event()
    # In a thread, because a reader that does not read would stop the loop, and with it every timer and signal.
    records = supervisor.places.jobs / request.request_id
    follower = threading.Thread(target=_follow, args=(records, over), daemon=True)
    follower.start()
    try:
        return finished(await supervisor.run_one(request))
    except Interrupted:
        return None
    finally:
        over.set()
        await asyncio.to_thread(follower.join)


def _follow(records: Path, over: threading.Event) -> None:
    with follow.reader_may_leave():
        follow.follow(records, over.is_set)


def finished(outcome: Outcome | None) -> Outcome | None:
    """The outcome of a job that came to its end, else None.

    An attempt that a signal stopped has one too: its job is put back for the next start, which a run does not have.
    """
    return None if outcome is not None and outcome.cause is Cause.HOST_STOPPING else outcome


def _own_state(settings: Settings) -> Settings:
    """Settings with a state directory of this run alone, so another owner."""
    state = Path(tempfile.mkdtemp(prefix="solstice-", dir="/var/tmp"))
    # QEMU runs as another user and must pass through.
    state.chmod(0o711)
    return replace(settings, state_dir=state, database_url=f"sqlite:///{state}/solstice.db")


def _forget(supervisor: Supervisor, state: Path) -> None:
    """Remove the state directory; if VMs are left, it is kept, and it is said how to remove both."""
    if not supervisor.left:
        files.remove_tree(state)
        return
    for name in supervisor.left:
        click.echo(f"solstice: {name} could not be removed: virsh destroy {name}; virsh undefine {name}", err=True)
    click.echo(f"solstice: its files are in {state}", err=True)


def _verdict(outcome: Outcome | None) -> str:
    if outcome is None or outcome.cause is None:
        return "interrupted; the job was ended and removed"
    return f"{outcome.state}: {outcome.detail or outcome.cause.sentence} [{outcome.cause}]"
