from pathlib import Path

import pytest

from solstice.errors import Cause
from solstice.images import messages
from solstice.images.messages import Configure, Failed, Idle, Order, Progress, Ready, Report, Retry
from solstice.model import Compression, DiskFormat, Image
from solstice.protocol.codec import BadMessage
from solstice.protocol.lines import decode, encode

IMAGE = Image("tiny", "https://host/tiny.zstd", Path("/images/tiny.img"), Compression.ZSTD)


@pytest.mark.parametrize("said", [Configure((IMAGE,)), Configure(()), Retry("tiny")])
def test_orders_survive_the_stream(said: Order) -> None:
    assert messages.order(decode(encode(messages.encode(said)))) == said


@pytest.mark.parametrize(
    "said",
    [
        Progress("tiny", 43, 1 << 33),
        Progress("tiny", None, 0),
        Ready("tiny", Path("/images/tiny.img"), DiskFormat.QCOW2, 1 << 40),
        Failed("tiny", Cause.DISK_FULL, "why", "remedy", 10.0),
        Ready("tiny", Path("/images/tiny.img"), DiskFormat.RAW, 512, "sha256:00"),
        messages.Candidate("tiny", Path("/images/versions/tiny/00"), DiskFormat.RAW, 512),
        messages.NotRefreshed("tiny", "why", "remedy", 10.0),
        Idle(),
    ],
)
def test_reports_survive_the_stream(said: Report) -> None:
    assert messages.report(decode(encode(messages.encode(said)))) == said


def test_an_image_needs_no_more_than_what_the_child_uses() -> None:
    entry = {"name": "tiny", "source": "/a", "local_path": "/b", "decompress": "none"}
    assert messages.order({"type": "configure", "images": [entry]}) == Configure((Image("tiny", "/a", Path("/b")),))


@pytest.mark.parametrize(
    "message", [{}, {"type": "ready"}, {"type": ["retry"]}, {"type": "retry"}, {"type": "retry", "image": 1}]
)
def test_what_is_no_order_is_refused(message: dict[str, object]) -> None:
    with pytest.raises(BadMessage):
        messages.order(message)


@pytest.mark.parametrize(
    "said", [messages.Wanted("tiny"), messages.Tested("tiny", Path("/images/versions/tiny/00"), False, "no hello")]
)
def test_what_is_said_of_jobs_and_tests_survives_the_stream(said: messages.Order) -> None:
    assert messages.order(decode(encode(messages.encode(said)))) == said
