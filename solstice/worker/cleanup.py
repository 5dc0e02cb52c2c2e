"""Removing what is left of one attempt whose worker died, and finding what may be left of any.

Cleaning kills rather than asks: whose VM this was is dead already, and its disk is thrown away.  Listing removes
nothing: whose each thing is only the supervisor knows.
"""

from __future__ import annotations

from pathlib import Path

from setproctitle import setproctitle

from solstice.host import files, journal
from solstice.hypervisors import router
from solstice.model import AttemptId
from solstice.protocol import attach, order
from solstice.worker import steps

_WHO = "cleaner"
# What lies in an attempt's record while it is not done.
_TRACES = ("vm", attach.JOURNAL, attach.SOCKET)


def clean(what: order.Clean) -> None:
    """Remove every trace of one attempt's VM.  Raises `InfraError`; may be repeated."""
    setproctitle(f"solstice: cleaner {what.id.short}")
    hypervisor = router.open(what.hypervisor)
    steps.destroy_and_remove(hypervisor, what.id, what.directory, _WHO)
    hypervisor.close()
    record = what.directory.parent
    files.remove_tree(what.directory)
    journal.put_away(record / attach.JOURNAL)
    (record / attach.SOCKET).unlink(missing_ok=True)
    if what.id.attempt == 0:  # a probe has no record to keep
        files.remove_tree(record.parent)


def find(what: order.List) -> tuple[str, ...]:
    """The names of the attempts that have a VM at the hypervisor or a trace of one in their records.

    Sees to it that guests have a network.  Raises `InfraError` if the hypervisor cannot be reached.
    """
    setproctitle("solstice: lister")
    hypervisor = router.open(what.hypervisor)
    owned = hypervisor.list_owned(what.owner)
    hypervisor.ensure_network()
    hypervisor.close()
    # A worker that was killed between making its directory and defining its domain leaves the directory alone.
    records = {path.parent for trace in _TRACES for path in what.jobs.glob(f"*/*/{trace}")} | {*what.jobs.glob("*/0")}
    return tuple(sorted({id.name for id in owned} | {_name(what.owner, record) for record in records}))


def _name(owner: str, record: Path) -> str:
    return AttemptId(owner, record.parent.name, int(record.name) if record.name.isdecimal() else 0).name
