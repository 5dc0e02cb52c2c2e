"""What becomes of an image that is ready: it is in the store, and its digest with each attempt that stands on it.

No libvirtd listens: what is looked at here comes before it is asked.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from solstice.config import configuration
from solstice.host.places import Places
from solstice.model import Backend
from solstice.protocol import jobrequest
from solstice.supervisor.dispatch import Dispatch
from solstice.supervisor.store import Store
from tests.supervisor.scenes import forkserver, run

DISK = b"\xeb" * (1 << 20)
DIGEST = f"sha256:{hashlib.sha256(DISK).hexdigest()}"
MAP = "default_label: tiny\nimages:\n  tiny: {source: source, local_path: images/tiny.img}\n"


@asynccontextmanager
async def dispatching(folder: Path) -> AsyncIterator[tuple[Dispatch, Store]]:
    (folder / "source").write_bytes(DISK)
    (folder / "map.yaml").write_text(MAP)
    flags = {
        "config": str(folder / "map.yaml"),
        "state_dir": str(folder / "state"),
        "run_dir": str(folder / "run"),
        "libvirt_uri": "qemu+unix:///system?socket=/nonexistent/libvirt-sock",
        "libvirt_domain_type": "qemu",
        "max_attempts": "1",
    }
    config = configuration.read(flags, {})
    places = Places(folder / "state", folder / "run")
    places.make()
    store = Store(config.settings.database_url, places.owner())
    await store.open()
    async with forkserver() as server:
        dispatch = Dispatch(config, Backend.LIBVIRT, places, store, server, lambda: None)
        dispatch.images.fetch(config.image_map.by_urgency())
        dispatch.start()
        try:
            yield dispatch, store
        finally:
            await dispatch.scheduler.abandon()
            await dispatch.close()
            await store.close()


def test_an_image_that_is_ready_is_in_the_store(reachable: Path) -> None:
    async def scenario() -> None:
        async with dispatching(reachable) as (_dispatch, store):
            while not (rows := (await store.ask("images"))["images"]):
                await asyncio.sleep(0.05)
            (row,) = rows
            assert (row["name"], row["digest"], row["format"]) == ("tiny", DIGEST, "raw")
            assert Path(row["path"]) == (reachable / "images" / "tiny.img").resolve()

    run(scenario())


def test_the_digest_of_the_image_is_kept_with_the_attempt_that_stands_on_it(reachable: Path) -> None:
    async def scenario() -> None:
        async with dispatching(reachable) as (dispatch, store):
            request = jobrequest.new_request(steps=[{"run": "true"}])
            document = jobrequest.to_document(request)
            await store.change("accept", request=document, label="tiny", image="tiny", at=1.0, host=dispatch.owner)
            dispatch.add(dispatch.catalogue.job(request, time.monotonic()))
            while not (tried := (await store.ask("job", job=request.request_id))["attempts"]):
                await asyncio.sleep(0.05)
            assert tried[0]["image_digest"] == DIGEST
            while dispatch.scheduler.active:
                await asyncio.sleep(0.05)

    pytest.importorskip("libvirt")
    run(scenario())
