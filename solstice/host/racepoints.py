"""Named points at which a test can have a process stop, to kill it, or starve it of something, exactly there.

`SOLSTICE_RACE`, which nobody sets but a test, names a folder; it comes to the children through `processes.spawn`.  The
test arms a point with a file of the point's name.  The first process that reaches the point takes the file away, writes
`POINT PID` to the FIFO `reached` in the folder, and stops itself by SIGSTOP; SIGCONT lets it go on.  Without the
variable a point costs a call and a comparison.

Beside it, and without it of no effect, `SOLSTICE_RACE_HASTE` divides the deadlines by which one process finds out that
another hangs, and `LD_PRELOAD` comes to the children as well: a disk that fails is a library that tests preload.
"""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

VARIABLE = "SOLSTICE_RACE"
HASTE = "SOLSTICE_RACE_HASTE"
FIFO = "reached"

_WORKER_REPORTS = (
    "identity",
    "preparing",
    "booting",
    "running",
    "step",
    "collecting",
    "outcome",
    "cleaning",
    "done",
    "failed",
)
_STEPS = (
    "worker.listen",
    "worker.prepare",
    "worker.start",
    "worker.destroy",
    "worker.remove",
    "worker.leave",
    "cleaner.destroy",
    "cleaner.remove",
)
_SUPERVISOR = (
    "accept.before",
    "accept.stored",
    "accept.acked",
    "start.before",
    "start.stored",
    "start.asked",
    *(
        f"{kind}.{moment}"
        for kind in ("identity", "phase", "step", "outcome", "done", "failed", "unknown")
        for moment in ("heard", "stored")
    ),
    "close.before",
    "close.stored",
    "close.removed",
    "crash.before",
    "crash.stored",
    "crash.cleaned",
    "publish.before",
    "publish.confirmed",
    "publish.sent",
    "reconcile.before",
    "reconcile.adopting",
    "reconcile.adopted",
    "reconcile.after",
)
_STORE = ("commit.before", "commit.after", "reply.after")
_IMAGES = (
    "pull.before",
    "pull.after",
    "convert.after",
    "settle.after",
    "record.after",
    "rename.after",
    "drop.before",
    "link.before",
    "link.after",
)
_FORK_SERVER = ("fork.before", "fork.after", "fork.answered")
# A report is not in the journal yet; in it, but not said; said.  A step is not begun; done.
POINTS = frozenset(
    [f"worker.{report}.{moment}" for report in _WORKER_REPORTS for moment in ("unwritten", "written", "said")]
    + [f"{step}.{moment}" for step in _STEPS for moment in ("before", "after")]
    + [f"supervisor.{point}" for point in _SUPERVISOR]
    + [f"store.{point}" for point in _STORE]
    + [f"images.{point}" for point in _IMAGES]
    + [f"forkserver.{point}" for point in _FORK_SERVER]
)

_folder = os.environ.get(VARIABLE)
_haste = float(os.environ.get(HASTE, "1")) if _folder is not None else 1.0


def reach(point: str) -> None:
    """Stop here if a test wants it.  Raises `KeyError`, in tests alone, for a name that is not in `POINTS`."""
    if _folder is not None:
        _stop_if_armed(Path(_folder), point)


def sooner(seconds: float) -> float:
    """A deadline for another process's silence, as it is meant or, in a test that cannot wait for it, sooner."""
    return seconds / _haste


def environment() -> dict[str, str]:
    """What a child's fresh environment must have so that its points can be armed as well."""
    if VARIABLE not in os.environ:
        return {}
    return {name: os.environ[name] for name in (VARIABLE, HASTE, "LD_PRELOAD") if name in os.environ}


def _stop_if_armed(folder: Path, point: str) -> None:
    if point not in POINTS:
        raise KeyError(point)
    try:
        (folder / point).unlink()  # succeeds for one process alone
    except FileNotFoundError:
        return
    # without a reader the test is over, and nobody would let us go on
    with contextlib.suppress(OSError):
        fifo = os.open(folder / FIFO, os.O_WRONLY | os.O_NONBLOCK)
        os.write(fifo, f"{point} {os.getpid()}\n".encode())
        os.close(fifo)
        os.kill(os.getpid(), signal.SIGSTOP)
