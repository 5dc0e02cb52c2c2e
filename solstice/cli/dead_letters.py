"""`solstice dead-letters`: what was refused and why, and how it is sent again when the reason is gone.

Talks to the broker itself: no supervisor has to run.  What is printed comes from whoever sent the requests; on a
terminal no control character of theirs gets through.
"""

from __future__ import annotations

import base64
import json
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import click

from solstice.broker.address import Tls
from solstice.broker.deadletters import Content, DeadLetter, list_letters, requeue, requeue_all, show
from solstice.broker.topology import Topology
from solstice.cli import options
from solstice.cli.follow import harmless
from solstice.cli.table import table
from solstice.errors import UsageError

_as_json = click.option("--json", "as_json", is_flag=True, help="For programs: the same as JSON.")
_broker = options.settings(*options.BROKER)


@click.group(name="dead-letters", short_help="list, show and send again what was refused")
def dead_letters() -> None:
    """Requests that no host could accept, with the reason.  An ID may be shortened to its beginning."""


@dead_letters.command("list", short_help="list what was refused, the oldest first")
@_as_json
@_broker
def _list(as_json: bool, **flags: Any) -> None:
    """List the dead letters, the oldest first; nothing is removed."""
    letters = list_letters(**_place(flags))
    if as_json:
        click.echo(json.dumps([asdict(letter) for letter in letters], indent=2))
        return
    head = ("ID", "REASON", "LABEL", "BYTES", "REFUSED", "DETAIL")
    click.echo(table(head, [_row(letter) for letter in letters]))


@dead_letters.command("show", short_help="show headers and body of one")
@click.argument("letter_id", metavar="ID")
@_as_json
@_broker
def _show(letter_id: str, as_json: bool, **flags: Any) -> None:
    """Show headers and body of a dead letter; of several with this ID, the oldest.

    In JSON a body that is not UTF-8 comes as body_base64.
    """
    content = show(wanted=letter_id, **_place(flags))
    if as_json:
        click.echo(json.dumps(_document(content), indent=2, default=str))
        return
    click.echo("".join(f"{_line(name)}: {_line(value)}\n" for name, value in _fields(content)))
    click.echo(harmless(content.body) if sys.stdout.isatty() else content.body)


@dead_letters.command("requeue", short_help="send the original requests again")
@click.argument("letter_ids", metavar="[ID]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All that are there now.")
@_broker
def _requeue(letter_ids: tuple[str, ...], everything: bool, **flags: Any) -> None:
    """Send the original requests again; each dead letter is removed once the broker has its request.

    A request that is still wrong comes back as a new dead letter.
    """
    if everything == bool(letter_ids):
        raise UsageError("dead-letters requeue", "it needs either IDs or --all", "solstice dead-letters requeue ID")
    place = _place(flags)
    done = requeue_all(**place) if everything else requeue(wanted=letter_ids, **place)
    click.echo(f"{done.count} sent again")
    if done.truncated:
        raise UsageError(
            f"{len(done.truncated)} not sent again",
            f"only the beginning of the request was kept: {', '.join(done.truncated[:5])}",
            "whoever sent it must make it smaller and send it again",
        )


def _place(flags: dict[str, Any]) -> dict[str, Any]:
    """What every function of broker/deadletters.py takes first."""
    settings = options.loaded(flags)
    return {
        "url": settings.amqp_url,
        "topology": Topology(settings.amqp_exchange, settings.amqp_queue, settings.amqp_routing_key),
        "tls": Tls(settings.amqp_ca_file, settings.amqp_cert_file, settings.amqp_key_file),
    }


def _row(letter: DeadLetter) -> tuple[str, ...]:
    return letter.id[:8], letter.reason, letter.label, str(letter.size), _when(letter.at), letter.detail[:60]


def _when(at: int | None) -> str:
    try:
        return "" if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):  # a sender may write any number
        return ""


def _fields(content: Content) -> list[tuple[str, object]]:
    letter = content.letter
    return [("id", letter.id), ("refused", _when(letter.at)), ("bytes", letter.size), *content.headers.items()]


def _line(value: object) -> str:
    """As one line; a control character becomes visible."""
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in str(value))


def _document(content: Content) -> dict[str, Any]:
    try:
        body = {"body": content.body.decode()}
    except UnicodeDecodeError:
        body = {"body_base64": base64.b64encode(content.body).decode()}
    return {**asdict(content.letter), "headers": dict(content.headers), **body}
