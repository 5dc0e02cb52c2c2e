"""Where things lie under one state directory, and the two things that make it a host: its lock and its owner id.

    STATE/lock                       held by the one supervisor, with its pid inside
    STATE/owner                      the random id that stands on every resource this host makes
    STATE/solstice.db                the store's (see store/)
    STATE/paused.json                what an operator paused
    STATE/noop/                      what the noop back end "runs"
    STATE/jobs/JOB/ATTEMPT/          the record of an attempt: log, console log, the worker's journal; stays
    STATE/jobs/JOB/ATTEMPT/vm/       what its VM needs: overlay, seed, sockets; gone when the attempt is done
    RUN/control.lock                 held by the supervisor that listens there
    RUN/control.sock                 the supervisor's control socket

Directories on the way to a VM's files are 0711: QEMU runs as a user of its own and must pass, but need not look.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from solstice.errors import UsageError
from solstice.host import files
from solstice.model import OWNER_DIGITS, AttemptId

# sizeof(sun_path) is 108 on Linux and illumos alike, with the terminating NUL: unix(7).
_MAX_SOCKET_PATH = 107
_LONGEST_NAME = "console.sock"


@dataclass(frozen=True, slots=True)
class Places:
    state: Path
    run: Path

    @property
    def jobs(self) -> Path:
        return self.state / "jobs"

    @property
    def noop(self) -> Path:
        return self.state / "noop"

    @property
    def paused(self) -> Path:
        return self.state / "paused.json"

    @property
    def control(self) -> Path:
        return self.run / "control.sock"

    def record(self, id: AttemptId) -> Path:
        return record_of(self.jobs, id)

    def vm(self, id: AttemptId) -> Path:
        return vm_of(self.jobs, id)

    def make(self) -> None:
        """Make the directories.  Raises `UsageError` if that is not possible, or a socket's path would be too long."""
        longest = self.vm(AttemptId("0" * OWNER_DIGITS, "0" * 36, 999)) / _LONGEST_NAME
        if len(os.fsencode(longest)) > _MAX_SOCKET_PATH:
            spare = _MAX_SOCKET_PATH - len(os.fsencode(longest)) + len(os.fsencode(self.state))
            raise UsageError(
                f"the state directory {self.state} is too deep",
                f"the sockets below it would have longer paths than the {_MAX_SOCKET_PATH} bytes a socket may have",
                f"choose one with at most {spare} bytes by --state-dir or SOLSTICE_STATE_DIR",
            )
        try:
            for directory in (self.state, self.jobs, self.noop, self.run):
                files.make_passable(directory)
        except OSError as error:
            raise UsageError(
                f"cannot make {error.filename}",
                error.strerror or "",
                "run as a user who may, or choose another place by --state-dir and --run-dir",
            ) from None

    def owner(self) -> str:
        """The id of this host; made on first use."""
        path = self.state / "owner"
        if not path.exists():
            files.replace(path, secrets.token_hex(OWNER_DIGITS // 2) + "\n")
        owner = path.read_text().strip()
        if not re.fullmatch(rf"[0-9a-f]{{{OWNER_DIGITS}}}", owner):
            why = f"it must be {OWNER_DIGITS} hexadecimal digits, the id on every VM of this host"
            raise UsageError(f"{path} is damaged", why, "remove it if no VM of this host is left (`virsh list --all`)")
        return owner

    @contextlib.contextmanager
    def locked(self, *, takes_run: bool = True) -> Iterator[None]:
        """Hold the state directory, and with `takes_run` the run directory, where the control socket is.

        Raises `UsageError` with the holder's pid if somebody else does.
        """
        with contextlib.ExitStack() as stack:
            stack.enter_context(_locked(self.state / "lock", "--state-dir"))
            if takes_run:
                stack.enter_context(_locked(self.run / "control.lock", "--run-dir"))
            yield


@contextlib.contextmanager
def _locked(path: Path, flag: str) -> Iterator[None]:
    kind = "state" if flag == "--state-dir" else "run"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        remedy = f"run as a user who may write there, or choose another by {flag}"
        raise UsageError(f"cannot use the {kind} directory {path.parent}", error.strerror or "", remedy) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    except BlockingIOError:
        holder = os.pread(descriptor, 32, 0).decode().strip() or "unknown"
        raise UsageError(
            f"the {kind} directory {path.parent} is in use",
            f"a supervisor with pid {holder} holds it",
            f"stop that one, or give this one a directory of its own by {flag}",
        ) from None
    finally:
        os.close(descriptor)


def record_of(jobs: Path, id: AttemptId) -> Path:
    return jobs / id.job / str(id.attempt)


def vm_of(jobs: Path, id: AttemptId) -> Path:
    return record_of(jobs, id) / "vm"
