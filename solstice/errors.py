"""The error tree, and the causes a job can fail for.  Layer 0: imports nothing of ours.

    SolsticeError                what failed, why, and what to do about it
    ├── UsageError               the operator: a flag, a variable, a file of this host   (exit 2)
    │   └── ConfigError          … with file, line and key
    ├── RequestError             the sender: a request that cannot be accepted
    ├── InfraError               this host: carries the `Cause` the attempt ends with
    │   └── DeadlineExpired      … because something did not happen in time
    └── InternalError            a fault of Solstice itself, a broken invariant

The type says whose fault it is; the message is three sentences that a person can act on.
No traceback reaches a user: the command line prints `str(error)` and exits with `exit_code`.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar


class Side(StrEnum):
    """Whose fault a failure is."""

    USER = "user"
    REQUEST = "request"
    INFRA = "infra"


class Cause(StrEnum):
    """Why a job did not succeed: first the side, then the kind.  Published; never renamed."""

    STEP_FAILED = "user.step_failed"
    TIMEOUT = "user.timeout"
    SILENT = "user.silent"
    CANCELLED = "user.cancelled"
    INVALID = "request.invalid"
    UNSCHEDULABLE = "request.unschedulable"
    IMAGE = "infra.image"
    HYPERVISOR = "infra.hypervisor"
    BOOT_TIMEOUT = "infra.boot_timeout"
    VM_LOST = "infra.vm_lost"
    GUEST_REBOOTED = "infra.guest_rebooted"
    WORKER_CRASHED = "infra.worker_crashed"
    WORKER_HUNG = "infra.worker_hung"
    DISK_FULL = "infra.disk_full"
    HOST_LOST = "infra.host_lost"
    HOST_STOPPING = "infra.host_stopping"

    @property
    def side(self) -> Side:
        return Side(self.value.split(".", 1)[0])

    @property
    def sentence(self) -> str:
        return _TEXTS[self].sentence

    @property
    def remedy(self) -> str:
        return _TEXTS[self].remedy


@dataclass(frozen=True, slots=True)
class _Text:
    sentence: str
    remedy: str


_TEXTS = {
    Cause.STEP_FAILED: _Text("a step of the job failed", "read the step's output with `solstice logs JOB`"),
    Cause.TIMEOUT: _Text("the job ran longer than it may", "raise timeout_s in the request, or make the job shorter"),
    Cause.SILENT: _Text(
        "the job printed nothing for too long", "raise silent_timeout_s, or let the job print progress"
    ),
    Cause.CANCELLED: _Text("the job was cancelled", "submit it again if it is still wanted"),
    Cause.INVALID: _Text(
        "the request is not a valid jobrequest.v1", "see solstice-job(5), and correct what the detail names"
    ),
    Cause.UNSCHEDULABLE: _Text("no host can ever run this request", "use one of the labels that the detail lists"),
    Cause.IMAGE: _Text(
        "the base image could not be used", "check `source` and `local_path` of the image in the image map"
    ),
    Cause.HYPERVISOR: _Text("the hypervisor refused or failed", "read the detail, and the log of libvirtd"),
    Cause.BOOT_TIMEOUT: _Text(
        "the guest's runner did not report in time",
        "read the console log in the job's directory; raise BOOT_TIMEOUT if the guest is only slow",
    ),
    Cause.VM_LOST: _Text("the virtual machine ended before its job did", "read the console log in the job's directory"),
    Cause.GUEST_REBOOTED: _Text("the guest rebooted during the job", "let no step reboot the machine"),
    Cause.WORKER_CRASHED: _Text(
        "the worker process of this attempt died", "read the supervisor's log; submit the job again"
    ),
    Cause.WORKER_HUNG: _Text(
        "the worker process of this attempt hung", "read the supervisor's log; check that libvirtd answers"
    ),
    Cause.DISK_FULL: _Text("the host's disk is full", "free space under the state directory"),
    Cause.HOST_LOST: _Text("the host or its supervisor went away during the job", "submit the job again"),
    Cause.HOST_STOPPING: _Text("the host is being stopped", "nothing: the job runs at the next start"),
}


class SolsticeError(Exception):
    """What failed, why, and what to do about it, in the words of whoever reads it."""

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, why: str = "", remedy: str = "") -> None:
        super().__init__(what, why, remedy)
        self.what = what
        self.why = why
        self.remedy = remedy

    def __str__(self) -> str:
        text = f"{self.what}: {self.why}" if self.why else self.what
        return f"{text} ({self.remedy})" if self.remedy else text


class UsageError(SolsticeError):
    """The operator asked for something this host cannot do, or asked wrongly."""

    exit_code = 2


class ConfigError(UsageError):
    """A configuration file is wrong at one place.

    `where` is `FILE:LINE` as editors understand it, `key` the dotted path inside the file.
    """

    def __init__(self, where: str, key: str, why: str, remedy: str = "") -> None:
        super().__init__(f"{where}: {key}" if key else where, why, remedy)
        self.where = where
        self.key = key


class RequestError(SolsticeError):
    """A job request that is not accepted; `cause` is request.invalid or request.unschedulable."""

    exit_code = 65  # EX_DATAERR of sysexits.h

    def __init__(self, why: str, cause: Cause = Cause.INVALID, remedy: str = "") -> None:
        super().__init__(cause.sentence, why, remedy or cause.remedy)
        self.cause = cause


class InfraError(SolsticeError):
    """This host failed an attempt; `cause` is what the attempt ends with."""

    def __init__(self, cause: Cause, why: str, remedy: str = "") -> None:
        super().__init__(cause.sentence, why, remedy or cause.remedy)
        self.cause = cause


def os_failure(error: OSError, cause: Cause) -> InfraError:
    """What an operating system's error means for an attempt: `infra.disk_full`, or else `cause`."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        cause = Cause.DISK_FULL
    return InfraError(cause, f"{error.strerror}: {error.filename}" if error.filename else str(error))


class DeadlineExpired(InfraError):
    """Something did not happen before its deadline."""


class InternalError(SolsticeError):
    """An invariant of Solstice itself does not hold."""

    exit_code = 70
