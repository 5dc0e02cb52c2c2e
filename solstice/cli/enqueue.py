"""`solstice enqueue`: publishes a request, and with `--wait` stays until its result."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

import click

from solstice.broker.address import Tls
from solstice.broker.enqueue import Event, ResultListener, publish_request
from solstice.broker.topology import Topology
from solstice.cli import exits, follow, options
from solstice.cli.request import environment, the_script
from solstice.cli.request import flags as request_flags
from solstice.config import jobfile
from solstice.config.settings import Settings
from solstice.errors import UsageError
from solstice.host import clock
from solstice.model import JobRequest
from solstice.protocol import jobrequest

# Longer than any job: nobody waits for a result of last month.
_WAIT_LIMIT = 30 * 24 * 3600.0


@click.command(short_help="send a job request to the broker")
@click.option(
    "--file", "path", type=click.Path(path_type=Path), help="The request as a YAML file, see solstice-job(5)."
)
@click.option("--wait", is_flag=True, help="Follow the log, and exit with the job's own exit code.")
@request_flags
@options.settings(*options.BROKER, *options.PLACES)
@click.argument("command", nargs=-1)
def enqueue(path: Path | None, command: tuple[str, ...], pairs: tuple[str, ...], wait: bool, **flags: Any) -> None:
    """Send a request that runs COMMAND, or the one in --file; prints the job's id.

    With --wait the exit code is the job's own; 124 timed out, 75 the infrastructure failed, 65 rejected.
    """
    settings = options.loaded(flags)
    request = _request(path, command, pairs, flags)
    topology = Topology(settings.amqp_exchange, settings.amqp_queue, settings.amqp_routing_key)
    tls = Tls(settings.amqp_ca_file, settings.amqp_cert_file, settings.amqp_key_file)
    if not wait:
        publish_request(settings.amqp_url, topology, jobrequest.to_document(request), tls)
        click.echo(request.request_id)
        return
    with ResultListener(settings.amqp_url, tls) as listener:
        publish_request(settings.amqp_url, topology, jobrequest.to_document(request), tls)
        click.echo(f"job {request.request_id}", err=True)
        event = _wait(listener, request.request_id, settings)
    sys.exit(exits.exit_code(event["state"], event.get("exit_code")))


def _request(path: Path | None, command: tuple[str, ...], pairs: tuple[str, ...], flags: dict[str, Any]) -> JobRequest:
    if (path is None) == (not command):
        raise UsageError("enqueue", "it needs either --file or a command", "solstice enqueue --runs-on LABEL -- 'make'")
    if path is None:
        return jobrequest.new_request(steps=[the_script(command)], env=environment(pairs), **flags)
    if pairs or any(value is not None for value in flags.values()):
        raise UsageError("enqueue", "--file says all of the request", "write the other options into the file")
    return jobfile.from_yaml(path)


def _wait(listener: ResultListener, job: str, settings: Settings) -> Event:
    """Show the log, if it is this host that has it, and the states; the terminal event."""
    over = threading.Event()
    records = settings.state_dir / "jobs" / job
    follower = threading.Thread(target=_follow, args=(records, over), daemon=True)
    follower.start()
    try:
        event = listener.wait(job, clock.deadline(_WAIT_LIMIT), lambda _event: None)
    except KeyboardInterrupt:
        click.echo(f"\nno longer waiting; the job goes on, see `solstice logs {job[:8]} -f`", err=True)
        sys.exit(exits.INTERRUPTED)
    finally:
        over.set()
        follower.join()
    if event is None:
        raise UsageError(f"job {job}", "it has not ended in a month", "see `solstice status`")
    click.echo(f"job {job[:8]} {event['state']}{_why(event)}", err=True)
    return event


def _follow(records: Path, over: threading.Event) -> None:
    with follow.reader_may_leave():
        follow.follow(records, over.is_set)


def _why(event: Event) -> str:
    if not event.get("cause"):
        return ""
    return f": {event.get('detail') or event.get('cause_text')} [{event['cause']}] ({event.get('remedy')})"
