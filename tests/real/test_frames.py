"""Deliveries and their ends are read off a stream, however it is cut into pieces."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pika import spec
from pika.frame import Body, Header, Heartbeat, ProtocolHeader
from pika.frame import Method as MethodFrame

from tests.real.frames import Frames, Kind, Method

HOST = [
    ProtocolHeader(),
    Heartbeat(),
    MethodFrame(1, spec.Basic.Ack(delivery_tag=7, multiple=True)),
    MethodFrame(1, spec.Basic.Nack(delivery_tag=8, multiple=False, requeue=True)),
    MethodFrame(2, spec.Basic.Reject(delivery_tag=9, requeue=True)),
    MethodFrame(2, spec.Channel.Close(reply_code=200, reply_text="bye", class_id=0, method_id=0)),
    MethodFrame(0, spec.Connection.Close(reply_code=200, reply_text="bye", class_id=0, method_id=0)),
]
SEEN_FROM_HOST = [
    Method(1, Kind.ACK, 7, True),
    Method(1, Kind.NACK, 8, False),
    Method(2, Kind.REJECT, 9, False),
    Method(2, Kind.CHANNEL_CLOSE),
    Method(0, Kind.CONNECTION_CLOSE),
]
# a body that looks like an ack
ACK = MethodFrame(1, spec.Basic.Ack(delivery_tag=1)).marshal()
BROKER = [
    MethodFrame(1, spec.Basic.Deliver("consumer", 1 << 40, False, "exchange", "key")),
    Header(1, len(ACK), spec.BasicProperties()),
    Body(1, ACK),
    MethodFrame(1, spec.Basic.Deliver("", 2, True, "", "")),
]
SEEN_FROM_BROKER = [Method(1, Kind.DELIVER, 1 << 40), Method(1, Kind.DELIVER, 2)]


@settings(deadline=None)  # the machine may be busy
@given(st.data())
@pytest.mark.parametrize(("frames", "seen"), [(HOST, SEEN_FROM_HOST), (BROKER, SEEN_FROM_BROKER)])
def test_the_methods_are_the_same_however_the_stream_is_cut(
    frames: list[MethodFrame], seen: list[Method], data: st.DataObject
) -> None:
    stream = b"".join(frame.marshal() for frame in frames)
    cuts = sorted(data.draw(st.sets(st.integers(1, len(stream) - 1))))
    parser = Frames()
    pieces = [stream[low:high] for low, high in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert [method for piece in pieces for method in parser.feed(piece)] == seen


def test_a_frame_without_its_end_is_an_error() -> None:
    with pytest.raises(ValueError, match="does not end"):
        list(Frames().feed(struct.pack(">BHI", 1, 0, 4) + b"\0\x0a\0\x32" + b"?"))
