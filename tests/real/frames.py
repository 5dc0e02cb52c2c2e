"""As much of AMQP 0-9-1's framing as it takes to see deliveries and what becomes of them.  Used by the recorder.

Bytes in, methods out, one parser per direction.  Content is passed over without being kept.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

_PROTOCOL_HEADER = b"AMQP"
_PROTOCOL_HEADER_SIZE = 8
_HEAD = struct.Struct(">BHI")
_IDENTITY = struct.Struct(">HH")
_TAG = struct.Struct(">Q")
_METHOD = 1
_FRAME_END = 0xCE
_MULTIPLE = 1


class Kind(Enum):
    """The methods that matter here, by class and method number."""

    CONNECTION_CLOSE = (10, 50)
    CHANNEL_CLOSE = (20, 40)
    DELIVER = (60, 60)
    ACK = (60, 80)
    REJECT = (60, 90)
    NACK = (60, 120)


@dataclass(frozen=True, slots=True)
class Method:
    """`tag` is the delivery tag, 0 where there is none; `multiple` means every delivery up to it."""

    channel: int
    kind: Kind
    tag: int = 0
    multiple: bool = False


class Frames:
    """One direction of one connection."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._to_skip = 0

    def feed(self, data: bytes) -> Iterator[Method]:
        """The methods of interest that these bytes complete.  Raises `ValueError` where they are no AMQP."""
        self._buffer += data
        while (frame := self._next()) is not None:
            channel, payload = frame
            method = _parse(channel, payload)
            if method is not None:
                yield method

    def _next(self) -> tuple[int, bytes] | None:
        """The next whole method frame: channel and payload; None if more bytes are needed."""
        while self._skip() and len(self._buffer) >= _PROTOCOL_HEADER_SIZE:
            if self._buffer.startswith(_PROTOCOL_HEADER):
                self._to_skip = _PROTOCOL_HEADER_SIZE
                continue
            kind, channel, size = _HEAD.unpack_from(self._buffer)
            if kind != _METHOD:
                self._to_skip = _HEAD.size + size + 1
                continue
            if len(self._buffer) < _HEAD.size + size + 1:
                return None
            if self._buffer[_HEAD.size + size] != _FRAME_END:
                raise ValueError("a frame does not end where it should")
            payload = bytes(self._buffer[_HEAD.size : _HEAD.size + size])
            self._to_skip = _HEAD.size + size + 1
            return channel, payload
        return None

    def _skip(self) -> bool:
        """Drop what is to be passed over; False if all of it has not come yet."""
        size = min(self._to_skip, len(self._buffer))
        del self._buffer[:size]
        self._to_skip -= size
        return self._to_skip == 0


def _parse(channel: int, payload: bytes) -> Method | None:
    try:
        kind = Kind(_IDENTITY.unpack_from(payload))
    except ValueError:
        return None
    at = _IDENTITY.size
    if kind in (Kind.CONNECTION_CLOSE, Kind.CHANNEL_CLOSE):
        return Method(channel, kind)
    if kind is Kind.DELIVER:
        at += 1 + payload[at]  # the consumer's tag, a short string
    (tag,) = _TAG.unpack_from(payload, at)
    multiple = kind in (Kind.ACK, Kind.NACK) and bool(payload[at + _TAG.size] & _MULTIPLE)
    return Method(channel, kind, tag, multiple)
