"""The back end that runs nothing: for hosts without privileges, and for everything about Solstice but the VM.

It keeps the contract on files: a VM is a file in the directory that `uri` names, called as the VM is, whose
text is its state.  A result from here carries `backend: noop`, so that nobody takes it for a real one.

For rehearsals of a host, a request's variable NOOP_SECONDS says for how long its VM runs, and a file refuse-LABEL
beside the VMs makes every VM of that label fail, with the file's text as the reason.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from solstice.errors import Cause, InfraError
from solstice.host import files
from solstice.model import AttemptId, VmSpec
from solstice.protocol import order

_DEFINED = "defined"
_RUNNING = "running"


class Noop:
    carries_guest = False

    def __init__(self, settings: order.Hypervisor) -> None:
        self._root = Path(settings.uri)

    def peers(self) -> frozenset[int]:
        return frozenset({os.getuid()})

    def version(self) -> int:
        return 0

    def ensure_network(self) -> None:
        pass

    def prepare(self, vm: VmSpec) -> None:
        refusal = self._root / f"refuse-{vm.label}"
        if refusal.exists():
            raise InfraError(Cause.HYPERVISOR, refusal.read_text().strip())
        self._file(vm.id).write_text(_DEFINED)

    def start(self, id: AttemptId) -> None:
        if not self._file(id).exists():
            raise InfraError(Cause.HYPERVISOR, f"no VM named {id.name}")
        self._file(id).write_text(_RUNNING)

    def is_running(self, id: AttemptId) -> bool:
        return self._file(id).exists() and self._file(id).read_text() == _RUNNING

    def request_shutdown(self, id: AttemptId) -> None:
        self.destroy(id)

    def destroy(self, id: AttemptId) -> None:
        if self._file(id).exists():
            self._file(id).write_text(_DEFINED)

    def remove(self, id: AttemptId, directory: Path) -> None:
        self._file(id).unlink(missing_ok=True)
        files.remove_tree(directory)

    def list_owned(self, owner: str) -> list[AttemptId]:
        found = [AttemptId.parse(path.name) for path in self._root.iterdir()]
        return [id for id in found if id is not None and id.owner == owner]

    def close(self) -> None:
        pass

    @staticmethod
    def seconds(environment: Mapping[str, str]) -> float:
        """How long a request of these variables wants its VM to run."""
        text = environment.get("NOOP_SECONDS", "")
        return float(text) if re.fullmatch(r"[0-9]{1,5}(\.[0-9]{1,3})?", text) else 0.0

    def _file(self, id: AttemptId) -> Path:
        return self._root / id.name
