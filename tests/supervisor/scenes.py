"""What several of these tests need: a bounded scenario, a real fork server, and noop attempts for its workers."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from solstice.model import AttemptId, Backend, DiskFormat, JobRequest, Step, VmSpec
from solstice.protocol import order
from solstice.supervisor.child import readable
from solstice.supervisor.forkclient import ForkServer

OWNER = "0123456789ab"
PATIENCE = 20.0


def run(scenario: Coroutine[Any, Any, None]) -> None:
    """Run one test's coroutine, for a minute at most."""

    async def bounded() -> None:
        async with asyncio.timeout(60):
            await scenario

    asyncio.run(bounded())


@asynccontextmanager
async def forkserver() -> AsyncIterator[ForkServer]:
    server = ForkServer()
    server.start()
    try:
        yield server
    finally:
        await server.close()


def server_process() -> psutil.Process:
    (found,) = [child for child in psutil.Process().children() if "forkserver" in " ".join(child.cmdline())]
    return found


async def gone(pid: int) -> bool:
    """True when this process has ended, reaped or not."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return await readable(pidfd, PATIENCE)
    finally:
        os.close(pidfd)


@dataclass
class Attempt:
    """A noop attempt.  `hold` keeps its worker in `preparing` until what it returns is called.

    It makes a FIFO of the VM's state file: whoever writes to it waits for a reader.
    """

    folder: Path
    job: str = field(default_factory=lambda: str(uuid.uuid4()))

    @property
    def id(self) -> AttemptId:
        return AttemptId(OWNER, self.job, 1)

    @property
    def hypervisor(self) -> order.Hypervisor:
        root = self.folder / "noop"
        root.mkdir(exist_ok=True)
        return order.Hypervisor(Backend.NOOP, uri=str(root))

    @property
    def order(self) -> order.Run:
        record = self.folder / self.job[:4]
        vm = VmSpec(self.id, "label", Path("/x"), DiskFormat.RAW, record / "vm")
        request = JobRequest(self.job, "label", (Step("one", "true"),))
        return order.Run(self.hypervisor, vm, request, order.Limits(5, 5, 5), record)

    def hold(self) -> Callable[[], None]:
        path = Path(self.hypervisor.uri) / self.id.name
        os.mkfifo(path)
        return lambda: self._release(path)

    def _release(self, path: Path) -> None:
        """Read what the worker writes, until it has removed the FIFO and nothing of it is left."""
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        loop = asyncio.get_running_loop()

        def read() -> None:
            os.read(reader, 4096)
            if not path.exists():
                loop.remove_reader(reader)
                os.close(reader)

        loop.add_reader(reader, read)
