"""The command line's side of the dead letters: list them, show one, send them again.  Blocking.

AMQP has no way to look into a queue: letters are fetched one by one, held unacked, and given back at the end, to the
places where they were.  For that moment nobody else sees them.  At most one body is in memory at a time.  A pass ends
after as many letters as the queue had at its start: a request that is sent again and refused again joins at the end,
and is not met twice.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from solstice.broker import address
from solstice.broker.address import SYSTEM, Tls
from solstice.broker.blocking import connected, errors, publish
from solstice.broker.deadletter import DETAIL, MAX_DETAIL, MESSAGE_ID, REASON, SIZE, TRUNCATED, cut, kept
from solstice.broker.publisher import properties
from solstice.broker.topology import Topology
from solstice.errors import UsageError

_MAX_LABEL = 64


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """What a list shows.  `id` is the request's message id, or a digest of the body if it had none.

    `label` is what the request asks for, if it can be read; `size` the original's, in bytes; `at` the time when it was
    refused (seconds since the epoch; None: unknown).
    """

    id: str
    reason: str
    detail: str
    label: str
    size: int
    truncated: bool
    at: int | None


@dataclass(frozen=True, slots=True)
class Content:
    """One dead letter as it stands in its queue."""

    letter: DeadLetter
    headers: Mapping[str, Any]
    body: bytes


@dataclass(frozen=True, slots=True)
class Requeued:
    """How many were sent again, and the ids of those that could not be, because only a part of them was kept."""

    count: int
    truncated: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Fetched:
    tag: int
    message_id: str
    content: Content


def list_letters(url: str, topology: Topology, tls: Tls = SYSTEM) -> list[DeadLetter]:
    """Every dead letter, in the queue's order.  Raises `UsageError`."""
    broker = address.parse(url, tls)
    with errors(broker), connected(broker) as channel:
        return _summaries(channel, topology)


def show(url: str, topology: Topology, wanted: str, tls: Tls = SYSTEM) -> Content:
    """The first dead letter whose id is `wanted` or begins with it.

    Raises `UsageError` also if there is none, or ids of several begin so.
    """
    broker = address.parse(url, tls)
    with errors(broker), connected(broker) as channel:
        (found,) = _resolve(_summaries(channel, topology), [wanted])
        for fetched in _fetch(channel, topology):
            if fetched.content.letter.id == found:
                return fetched.content
        raise _missing([wanted])  # someone took it between the two passes


def requeue(url: str, topology: Topology, wanted: Collection[str], tls: Tls = SYSTEM) -> Requeued:
    """Send these again, by id or its beginning; all letters of an id.  Each is removed once the broker has the request.

    Raises `UsageError` also, and sends nothing, if one of them is not there or means several.
    """
    broker = address.parse(url, tls)
    with errors(broker), connected(broker) as channel:
        ids = _resolve(_summaries(channel, topology), wanted)
        return _send_again(channel, topology, ids)


def requeue_all(url: str, topology: Topology, tls: Tls = SYSTEM) -> Requeued:
    """Send every dead letter again that is whole.  Raises `UsageError`."""
    broker = address.parse(url, tls)
    with errors(broker), connected(broker) as channel:
        return _send_again(channel, topology, None)


def _send_again(channel: Any, topology: Topology, ids: Collection[str] | None) -> Requeued:
    channel.confirm_delivery()
    count, truncated = 0, []
    for fetched in _fetch(channel, topology):
        letter = fetched.content.letter
        if ids is not None and letter.id not in ids:
            continue
        if letter.truncated:
            truncated.append(letter.id)
            continue
        original = properties(fetched.message_id, kept(fetched.content.headers))
        publish(channel, topology, fetched.content.body, original)
        channel.basic_ack(fetched.tag)
        count += 1
    return Requeued(count, tuple(truncated))


def _summaries(channel: Any, topology: Topology) -> list[DeadLetter]:
    letters = [fetched.content.letter for fetched in _fetch(channel, topology)]
    if letters:
        channel.basic_nack(0, multiple=True, requeue=True)  # 0: all that this channel holds
    return letters


def _fetch(channel: Any, topology: Topology) -> Iterator[_Fetched]:
    """Each letter that is there now, unacked."""
    left: int | None = None
    while left != 0:
        method, header, body = channel.basic_get(topology.dead_letter_queue)
        if method is None:  # empty, or someone else takes them as well
            return
        # Not the count of a passive declare: that question overtakes, in the queue, what this channel just gave back.
        left = method.message_count if left is None else left - 1
        yield _fetched(method.delivery_tag, header, body)


def _fetched(tag: int, header: Any, body: bytes) -> _Fetched:
    headers = header.headers or {}
    message_id = _text(headers.get(MESSAGE_ID)) or _text(header.message_id)
    letter = DeadLetter(
        id=message_id or hashlib.sha256(body).hexdigest()[:32],
        reason=_text(headers.get(REASON)),
        detail=cut(_text(headers.get(DETAIL)), MAX_DETAIL),
        label=_label(body),
        size=size if isinstance(size := headers.get(SIZE), int) else len(body),
        truncated=bool(headers.get(TRUNCATED)),
        at=header.timestamp,
    )
    return _Fetched(tag, message_id, Content(letter, headers, body))


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _label(body: bytes) -> str:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    return cut(_text(document.get("runs_on")), _MAX_LABEL) if isinstance(document, dict) else ""


def _resolve(letters: Collection[DeadLetter], wanted: Collection[str]) -> set[str]:
    """The full ids of those that are wanted, each by id or its beginning."""
    known = {letter.id for letter in letters}
    found: set[str] = set()
    missing: list[str] = []
    for name in wanted:
        matches = {name} if name in known else {each for each in known if name and each.startswith(name)}
        if len(matches) > 1:
            some = ", ".join(sorted(matches)[:5])
            raise UsageError(f"dead letter {name}", f"{len(matches)} ids begin so: {some}", "write more of the id")
        if not matches:
            missing.append(name)
        found |= matches
    if missing:
        raise _missing(missing)
    return found


def _missing(names: list[str]) -> UsageError:
    return UsageError(
        f"dead letter {', '.join(names)}", "there is none of that id", "`solstice dead-letters list` shows them"
    )
