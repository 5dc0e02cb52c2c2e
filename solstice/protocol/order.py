"""What the supervisor tells a worker: one order as the first message, then at most a `Stop`.

An order is all that the worker knows: it reads no configuration and no environment.  The kinds:

    run      one attempt of a job, from nothing to a VM and back to nothing
    clean    remove whatever a dead worker left of one attempt
    list     reach the hypervisor at all, and name what this owner has there
    forget   remove the logs of jobs that ended long ago
    stale    name the jobs whose logs are that old
    probe    find out whether hardware acceleration runs a real kernel on this host
    boot     find out whether an image boots to its runner's hello
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from solstice.model import AttemptId, Backend, DomainType, JobRequest, Outcome, VmSpec
from solstice.protocol.codec import BadMessage, from_plain, to_plain
from solstice.protocol.lines import Message

VERSION = 1


@dataclass(frozen=True, slots=True)
class Hypervisor:
    """Which back end, and how to reach it."""

    backend: Backend
    uri: str = ""
    network: str = ""
    domain_type: DomainType = DomainType.QEMU


@dataclass(frozen=True, slots=True)
class Limits:
    """Durations of an attempt, in seconds."""

    boot: float
    job: float
    shutdown: float


@dataclass(frozen=True, slots=True)
class Run:
    """`record` is the directory that stays: log and console log are written there."""

    hypervisor: Hypervisor
    vm: VmSpec
    request: JobRequest
    limits: Limits
    record: Path


@dataclass(frozen=True, slots=True)
class Clean:
    hypervisor: Hypervisor
    id: AttemptId
    directory: Path


@dataclass(frozen=True, slots=True)
class List:
    """`jobs` is the directory under which the records of all attempts lie."""

    hypervisor: Hypervisor
    owner: str
    jobs: Path


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What a probe found, and what it holds for: another boot or another QEMU makes it void."""

    domain_type: DomainType
    boot_id: str
    qemu_version: int
    reason: str


@dataclass(frozen=True, slots=True)
class Probe:
    """`known` is the last result on this host, if there is one; it is given back if it still holds."""

    hypervisor: Hypervisor
    vm: VmSpec
    known: ProbeResult | None = None


@dataclass(frozen=True, slots=True)
class BootTest:
    """Boot `vm` once; it fails if its runner has not said hello within `timeout` seconds."""

    hypervisor: Hypervisor
    vm: VmSpec
    timeout: float


@dataclass(frozen=True, slots=True)
class Forget:
    """`jobs` is the directory under which the records of the jobs `ids` lie."""

    jobs: Path
    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Stale:
    """`jobs` is the directory under which all records lie; those are wanted that nothing has changed since `before`."""

    jobs: Path
    before: float


Errand = Clean | List | Probe | BootTest | Forget | Stale
Order = Run | Errand
_KINDS: dict[str, type[Order]] = {
    "run": Run,
    "clean": Clean,
    "list": List,
    "probe": Probe,
    "boot": BootTest,
    "forget": Forget,
    "stale": Stale,
}


@dataclass(frozen=True, slots=True)
class Stop:
    """End the attempt with `outcome`; `hurry` skips the guest's own shutdown."""

    outcome: Outcome
    hurry: bool = False


def encode(order: Order) -> Message:
    kind = next(name for name, cls in _KINDS.items() if type(order) is cls)
    return {"v": VERSION, "type": kind, "order": to_plain(order)}


def decode(message: Message) -> Order:
    """The order in a worker's first message.  Raises `BadMessage`."""
    kind = _KINDS.get(str(message.get("type")))
    if message.get("v") != VERSION or kind is None:
        raise BadMessage("not an order that this worker knows", f"v={message.get('v')} type={message.get('type')}")
    return from_plain(kind, message.get("order"))


def encode_stop(stop: Stop) -> dict[str, Any]:
    return {"v": VERSION, "type": "stop", "stop": to_plain(stop)}


def is_stop(message: Message) -> bool:
    """False for what only a later supervisor knows to say to a busy worker, who lets it pass."""
    return message.get("type") == "stop"


def decode_stop(message: Message) -> Stop:
    """Raises `BadMessage`."""
    if not is_stop(message):
        raise BadMessage("not a message that a busy worker knows", f"type={message.get('type')}")
    return from_plain(Stop, message.get("stop"))
