"""The values that everything else speaks of: frozen dataclasses and enums, no behaviour beyond naming.  Layer 0.

Units: memory in MiB, disk in GiB, durations in float seconds, wall-clock times in float seconds since the epoch.
One identity type, `AttemptId`, makes every name of an attempt that the operating system sees, and parses it back:
what a crash leaves behind is found and attributed by it.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from solstice.errors import Cause
from solstice.lifecycle import JobState

OWNER_DIGITS = 12
DEFAULT_PRIORITY = 5
_UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_NAME = re.compile(rf"solstice-([0-9a-f]{{{OWNER_DIGITS}}})-({_UUID})-([0-9]{{1,3}})")


class Backend(StrEnum):
    AUTO = "auto"
    LIBVIRT = "libvirt"
    ZONES = "zones"
    NOOP = "noop"


class DomainType(StrEnum):
    """How QEMU executes the guest: hardware (`kvm`) or plain emulation (`qemu`)."""

    AUTO = "auto"
    KVM = "kvm"
    QEMU = "qemu"


class Compression(StrEnum):
    NONE = "none"
    AUTO = "auto"
    ZSTD = "zstd"
    GZIP = "gzip"
    XZ = "xz"
    BZIP2 = "bzip2"


class DiskFormat(StrEnum):
    RAW = "raw"
    QCOW2 = "qcow2"


class SeedBus(StrEnum):
    """Where the seed is attached.  Cloud kernels of Debian and Ubuntu have no AHCI driver: virtio is the default."""

    VIRTIO = "virtio"
    SATA = "sata"


@dataclass(frozen=True, slots=True)
class Resources:
    """What one VM gets; `disk_gib` 0 means as large as the image."""

    cpus: int = 1
    memory_mib: int = 1024
    disk_gib: int = 0


@dataclass(frozen=True, slots=True)
class Image:
    """One entry of the image map.  Sizes in bytes; `refresh` is seconds between two looks at the source, 0 for none."""

    name: str
    source: str
    local_path: Path
    decompress: Compression = Compression.NONE
    nocloud: bool = True
    seed_bus: SeedBus = SeedBus.VIRTIO
    resources: Resources = Resources()
    sha256: str = ""
    sha512: str = ""
    checksum_url: str = ""
    max_size: int = 256 << 30
    decoder_memory: int = 128 << 20
    refresh: float = 0.0
    boot_test: bool = False
    prepare: DiskFormat | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a job; `timeout_s` 0 means no limit of its own."""

    name: str
    run: str
    env: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = 0.0


@dataclass(frozen=True, slots=True)
class JobRequest:
    """A validated `jobrequest.v1`.  `timeout_s` 0 means the host's JOB_TIMEOUT; of `priority` 0 to 9, 9 is first.

    `concurrency_group` counts within one `repo_url`; an empty one is no group.
    """

    request_id: str
    runs_on: str
    steps: tuple[Step, ...]
    size: str = ""
    repo_url: str = ""
    commit_sha: str = ""
    ref: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = 0.0
    priority: int = DEFAULT_PRIORITY
    concurrency_group: str = ""
    cancel_in_progress: bool = False
    artifacts: tuple[str, ...] = ()
    source: str = ""
    submitted_at: str = ""


@dataclass(frozen=True, slots=True)
class StepResult:
    """How one step ended; `exit_code` is the shell's, so 128+N for a signal N."""

    name: str
    exit_code: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended.  `cause` is None exactly when `state` is `succeeded`."""

    state: JobState
    cause: Cause | None = None
    detail: str = ""
    exit_code: int | None = None
    steps: tuple[StepResult, ...] = ()


@dataclass(frozen=True, slots=True)
class AttemptId:
    """The identity of one attempt, and every name that the operating system sees of it.

    `owner` is the random id of the state directory (12 hex digits), `job` the request's UUID, `attempt` counts
    from 1 (0 for a VM that belongs to no job, as the probe's).  The longest name has 62 characters: an illumos
    zone name may have 63.
    """

    owner: str
    job: str
    attempt: int

    @property
    def name(self) -> str:
        """The name of the domain or zone."""
        return f"solstice-{self.owner}-{self.job}-{self.attempt}"

    @property
    def uuid(self) -> str:
        """The domain's UUID, a function of the name: a second definition of the same attempt cannot be another VM."""
        return str(uuid.uuid5(uuid.NAMESPACE_URL, self.name))

    @property
    def hostname(self) -> str:
        return f"solstice-{self.short}"

    @property
    def short(self) -> str:
        """The job's first eight digits, as `ps` and tables show it."""
        return self.job[:8]

    @classmethod
    def parse(cls, name: str) -> AttemptId | None:
        """The identity in a domain's or zone's name, or None if it is not one of ours."""
        match = _NAME.fullmatch(name)
        return cls(match[1], match[2], int(match[3])) if match else None


@dataclass(frozen=True, slots=True)
class VmSpec:
    """All that a hypervisor needs to make one VM.

    `directory` is the attempt's throw-away directory: whatever the VM needs on disk (overlay, seed, sockets) is
    made in it, and the whole of it is removed at the end.
    """

    id: AttemptId
    label: str
    base: Path
    base_format: DiskFormat
    directory: Path
    resources: Resources = Resources()
    seed_bus: SeedBus = SeedBus.VIRTIO
    nocloud: bool = True

    @property
    def overlay(self) -> Path:
        return self.directory / "overlay.qcow2"

    @property
    def seed(self) -> Path:
        return self.directory / "seed.iso"

    @property
    def runner_socket(self) -> Path:
        return self.directory / "runner.sock"

    @property
    def console_socket(self) -> Path:
        return self.directory / "console.sock"
