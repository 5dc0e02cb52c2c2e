"""A cancel that comes while the store is being told that the job will be tried again; with a real store and workers."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from solstice.config import configuration
from solstice.host.places import Places
from solstice.model import Backend, Outcome
from solstice.protocol import jobrequest
from solstice.supervisor.dispatch import Dispatch
from solstice.supervisor.store import Store
from tests.supervisor.scenes import forkserver, run

MAP = "default_label: tiny\nimages:\n  tiny: {source: /x, local_path: /x}\n"


class SlowStore(Store):
    """Takes the release of an attempt only when it is allowed to."""

    def __init__(self, url: str, host: str) -> None:
        super().__init__(url, host)
        self.asked = asyncio.Event()
        self.allowed = asyncio.Event()

    async def change(self, op: str, **fields: Any) -> Any:
        if op == "release":
            self.asked.set()
            await self.allowed.wait()
        return await super().change(op, **fields)


def test_it_is_kept(reachable: Path) -> None:
    (reachable / "map.yaml").write_text(MAP)
    flags = {
        "config": str(reachable / "map.yaml"),
        "state_dir": str(reachable / "state"),
        "run_dir": str(reachable / "run"),
        "max_attempts": "3",
    }
    config = configuration.read(flags, {})
    places = Places(reachable / "state", reachable / "run")
    places.make()
    (places.noop / "refuse-tiny").write_text("no such network")

    async def scenario() -> None:
        store = SlowStore(config.settings.database_url, places.owner())
        await store.open()
        async with forkserver() as server:
            dispatch = Dispatch(config, Backend.NOOP, places, store, server, lambda: None)
            ended: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
            dispatch.on_end = lambda _job, outcome: ended.set_result(outcome)
            dispatch.start()
            request = jobrequest.new_request(steps=[{"run": "true"}])
            document = jobrequest.to_document(request)
            await store.change("accept", request=document, label="tiny", image="tiny", at=1.0, host=dispatch.owner)
            dispatch.add(dispatch.catalogue.job(request, time.monotonic()))
            await store.asked.wait()
            assert dispatch.cancel(request.request_id, "cancelled by an operator of the host")
            store.allowed.set()
            assert (await ended).cause == "user.cancelled"
            found = await store.ask("job", job=request.request_id)
            assert (found["job"]["state"], len(found["attempts"])) == ("cancelled", 1)
            await dispatch.close()
        await store.close()

    run(scenario())
