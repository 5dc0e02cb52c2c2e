"""What the supervisor and the images child tell each other: values here, one JSON object each on the stream.

Orders go to the child: first one `Configure`, later any number of the others.  Reports come back.  Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from solstice.errors import Cause
from solstice.model import DiskFormat, Image
from solstice.protocol.codec import BadMessage, from_plain, to_plain
from solstice.protocol.lines import Message


@dataclass(frozen=True, slots=True)
class Configure:
    """The images this host is to have, the most urgent first."""

    images: tuple[Image, ...]


@dataclass(frozen=True, slots=True)
class Retry:
    """Look after this image now, whatever its back-off says."""

    image: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """A job waits for this image: it goes before the others, and its back-off is cut to the shortest."""

    image: str


@dataclass(frozen=True, slots=True)
class Tested:
    """The boot test of the candidate at `path` is over; `why` says why it did not boot."""

    image: str
    path: Path
    ok: bool
    why: str = ""


@dataclass(frozen=True, slots=True)
class Progress:
    """A download is under way: `bytes` have come, which is `percent` of the whole where the source tells its size."""

    image: str
    percent: int | None
    bytes: int


@dataclass(frozen=True, slots=True)
class Ready:
    """The image stands at `path` and was checked; `virtual_size` is the disk's, in bytes.

    `path` is that of the version, which stays while a VM stands on it; `digest` is what its results bear.
    """

    image: str
    path: Path
    format: DiskFormat
    virtual_size: int
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A new version that is to be used once it has booted: `Tested` is the answer that the child waits for."""

    image: str
    path: Path
    format: DiskFormat
    virtual_size: int


@dataclass(frozen=True, slots=True)
class Failed:
    """The image cannot be had; the next try is in `retry_in` seconds."""

    image: str
    cause: Cause
    why: str
    remedy: str
    retry_in: float


@dataclass(frozen=True, slots=True)
class NotRefreshed:
    """There may be a newer version, and it cannot be had; what is ready stays so.  The next try is in `retry_in`."""

    image: str
    why: str
    remedy: str
    retry_in: float


@dataclass(frozen=True, slots=True)
class Idle:
    """Nothing more is to do now."""


# The variables of the supervisor's environment that the child needs too, in upper or in lower case.
NETWORK = frozenset({"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"})

T = TypeVar("T")

Order = Configure | Retry | Wanted | Tested
Report = Progress | Ready | Candidate | Failed | NotRefreshed | Idle

_ORDERS: Mapping[str, type[Order]] = {"configure": Configure, "retry": Retry, "wanted": Wanted, "tested": Tested}
_REPORTS: Mapping[str, type[Report]] = {
    "progress": Progress,
    "ready": Ready,
    "candidate": Candidate,
    "failed": Failed,
    "not_refreshed": NotRefreshed,
    "idle": Idle,
}
_NAMES = {kind: name for kinds in (_ORDERS, _REPORTS) for name, kind in kinds.items()}


def encode(said: Order | Report) -> Message:
    return {"type": _NAMES[type(said)], **to_plain(said)}


def order(message: Message) -> Order:
    """What the supervisor said.  Raises `BadMessage`."""
    return from_plain(_kind(_ORDERS, message), message)


def report(message: Message) -> Report:
    """What the child said.  Raises `BadMessage`."""
    return from_plain(_kind(_REPORTS, message), message)


def _kind(kinds: Mapping[str, type[T]], message: Message) -> type[T]:
    kind = kinds.get(str(message.get("type")))
    if kind is None:
        raise BadMessage("message of an unknown type", f"{message.get('type')!r}, not one of {', '.join(kinds)}")
    return kind
