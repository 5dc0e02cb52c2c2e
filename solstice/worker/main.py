"""What a freshly forked worker does: read its order, carry it out, report, end.

Called by the fork server in the child.  It owns its channel and everything its order makes; it returns an exit status
and never raises.  Status 0 says that the last report was made, 1 that the worker itself is at fault.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import socket
import sys
import traceback
import uuid
from pathlib import Path

import psutil

from solstice.errors import Cause, InfraError, os_failure
from solstice.host import files
from solstice.host.channel import Channel, Closed
from solstice.model import OWNER_DIGITS, AttemptId, Backend, DiskFormat, JobRequest, Step, VmSpec
from solstice.protocol import order, reports
from solstice.runner import script
from solstice.seed import documents, iso
from solstice.worker import cleanup, forget, life, probe
from solstice.worker.link import Link
from solstice.worker.reporter import Reporter

# The back ends' own modules are imported where they are used; the fork server has them in memory before it forks.
_HEAVY = ("pycdlib", "solstice.hypervisors.noop")
_LINUX_ONLY = "solstice.hypervisors.libvirt.hypervisor"


def preload() -> None:
    """Import what workers need, so that each of them starts with it."""
    for name in _HEAVY:
        importlib.import_module(name)
    if importlib.util.find_spec("libvirt") is not None:
        importlib.import_module(_LINUX_ONLY)
    _rehearse()


def _rehearse() -> None:
    """Do once, to no effect, what each worker does: what that imports and fills stays in the pages that they share.

    Measured: a third of a noop worker's CPU time, most of it page faults.
    """
    id = AttemptId("0" * OWNER_DIGITS, str(uuid.UUID(int=0)), 0)
    iso.image(documents.nocloud(id, script.script()))
    vm = VmSpec(id, "label", Path("/base"), DiskFormat.RAW, Path("/vm"))
    request = JobRequest(id.job, "label", (Step("step", "true", {"A": "b"}),))
    run = order.Run(order.Hypervisor(Backend.NOOP), vm, request, order.Limits(1.0, 1.0, 1.0), Path("/record"))
    order.decode(order.encode(run))


def main(sock: socket.socket) -> int:
    """Carry out the one order that arrives on `sock`; the exit status."""
    channel = Channel(sock)
    try:
        message = channel.receive()
        assert message is not None, "no deadline was given"  # noqa: S101 - for the type checker
        _carry_out(order.decode(message), channel)
    except Closed:
        return 0  # the supervisor went away before it said what to do
    except Exception:  # noqa: BLE001 - the last frame: what is not caught here would run the fork server's loop
        _print_trace()
        return 1
    return 0


def _carry_out(what: order.Order, channel: Channel) -> None:
    with contextlib.ExitStack() as stack:
        reporter = Reporter(channel)
        voice: Reporter | Link = reporter
        try:
            if isinstance(what, order.Run):
                files.make_passable(what.record)
                voice = stack.enter_context(Link(what.record, channel))
                voice.send(_identity(what.vm.id))
                life.Life(what, voice).run()
            else:
                _run_errand(what, reporter)
            voice.send(reports.Done())
        except OSError as error:
            _print_trace()
            failure = os_failure(error, Cause.HYPERVISOR)
            voice.send(reports.Failed(failure.cause, failure.why, failure.remedy))
        except InfraError as error:
            voice.send(reports.Failed(error.cause, error.why, error.remedy))


def _run_errand(what: order.Errand, reporter: Reporter) -> None:
    match what:
        case order.Clean():
            cleanup.clean(what)
        case order.List():
            reporter.send(reports.Found(names=cleanup.find(what)))
        case order.Forget():
            reporter.send(reports.Found(names=forget.forget(what)))
        case order.Stale():
            reporter.send(reports.Found(names=forget.stale(what)))
        case order.Probe():
            reporter.send(reports.Found(probe=probe.probe(what)))
        case order.BootTest():
            probe.boot_test(what)


def _identity(id: AttemptId) -> reports.Identity:
    return reports.Identity(id.owner, os.getpid(), psutil.Process().create_time(), id.job, id.attempt)


def _print_trace() -> None:
    """For the supervisor's log; which may be closed, as a worker outlives its supervisor."""
    with contextlib.suppress(OSError):
        traceback.print_exc(file=sys.stderr)
