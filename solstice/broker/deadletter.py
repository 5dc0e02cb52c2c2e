"""The copy of a message that was refused, with the reason in its headers.

A reject cannot carry a reason; so the supervisor publishes this copy to the dead-letter exchange, waits for the
confirm, and only then acks the original.  Pure: bytes and headers in, bytes and headers out, whatever the
sender put in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from solstice.errors import Cause

MAX_BODY = 1 << 20
MAX_DETAIL = 1 << 10
MAX_HEADERS = 32
MAX_HEADER_TEXT = 256

PREFIX = "x-solstice-"
REASON = "x-solstice-reason"
DETAIL = "x-solstice-detail"
MESSAGE_ID = "x-solstice-message-id"
TRUNCATED = "x-solstice-truncated"
SIZE = "x-solstice-size"

# What the broker itself writes about earlier routes: in a copy they would speak of another message, and
# CC and BCC would make the broker deliver the copy elsewhere as well.
_BROKERS_OWN = ("x-death", "x-first-death-", "x-last-death-", "x-delivery-count", "x-acquired-count", "cc", "bcc")


def dead_letter(
    body: bytes, headers: Mapping[str, Any], reason: Cause, detail: str, message_id: str = ""
) -> tuple[bytes, dict[str, Any]]:
    """Body and headers of the copy.

    The body is cut at `MAX_BODY` bytes and then marked with its original size; `detail` is cut at `MAX_DETAIL` bytes
    of UTF-8, never inside a character.  Original headers are kept if they are few, short and plain.
    """
    ours: dict[str, Any] = {REASON: reason.value, DETAIL: cut(detail, MAX_DETAIL)}
    if message_id:
        ours[MESSAGE_ID] = cut(message_id, MAX_HEADER_TEXT)
    if len(body) > MAX_BODY:
        ours |= {TRUNCATED: True, SIZE: len(body)}
    return body[:MAX_BODY], {**kept(headers), **ours}


def cut(text: str, limit: int) -> str:
    """The longest beginning of `text` that is valid and has at most `limit` bytes of UTF-8."""
    # a lone surrogate (JSON can spell one) has no UTF-8 form
    return text.encode(errors="replace")[:limit].decode(errors="ignore")


def kept(headers: Mapping[str, Any]) -> dict[str, Any]:
    """The headers that a copy keeps of its original: of a copy's own headers, the original's again."""
    plain = {name: value for name, value in headers.items() if _is_plain_name(name) and _is_plain(value)}
    return dict(list(plain.items())[:MAX_HEADERS])


def _is_plain_name(name: object) -> bool:
    if not isinstance(name, str) or not _is_plain(name):
        return False
    lower = name.lower()
    # a header name is an AMQP short string; ours cannot be forged by the sender
    return len(name.encode()) < 128 and not lower.startswith((PREFIX, *_BROKERS_OWN))


def _is_plain(value: object) -> bool:
    if isinstance(value, str):
        return len(value) <= MAX_HEADER_TEXT and value.isprintable()
    if isinstance(value, int):  # bool is one
        return -(1 << 31) <= value < 1 << 31
    return False
