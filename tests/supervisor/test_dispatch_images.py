"""What becomes of an image that is ready: it is in the store, and its digest with each attempt that stands on it.

No libvirtd listens: what is looked at here comes before it is asked.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from solstice.config import configuration
from solstice.host.places import Places
from solstice.images.messages import Ready
from solstice.model import AttemptId, Backend
from solstice.protocol import jobrequest
from solstice.supervisor import boottest
from solstice.supervisor.dispatch import Dispatch
from solstice.supervisor.jobs import Active, Job
from solstice.supervisor.store import Store
from tests.supervisor.scenes import forkserver, run

DISK = b"\xeb" * (1 << 20)
DIGEST = f"sha256:{hashlib.sha256(DISK).hexdigest()}"
MAP = "default_label: tiny\nimages:\n  tiny: {source: source, local_path: images/tiny.img}\n"


@asynccontextmanager
async def dispatching(
    folder: Path, images: str = MAP, on_change: Callable[[], None] = lambda: None
) -> AsyncIterator[tuple[Dispatch, Store]]:
    (folder / "source").write_bytes(DISK)
    (folder / "map.yaml").write_text(images)
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
        dispatch = Dispatch(config, Backend.LIBVIRT, places, store, server, on_change)
        dispatch.images.fetch(config.image_map.by_urgency())
        dispatch.start()
        try:
            yield dispatch, store
        finally:
            await dispatch.scheduler.abandon()
            await dispatch.close()
            await store.close()


async def accepted(dispatch: Dispatch, store: Store) -> Job:
    """A job that the store knows, and nobody else yet."""
    request = jobrequest.new_request(steps=[{"run": "true"}])
    document = jobrequest.to_document(request)
    await store.change("accept", request=document, label="tiny", image="tiny", at=1.0, host=dispatch.owner)
    return dispatch.catalogue.job(request, time.monotonic())


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
            job = await accepted(dispatch, store)
            dispatch.add(job)
            while not (tried := (await store.ask("job", job=job.id))["attempts"]):
                await asyncio.sleep(0.05)
            assert tried[0]["image_digest"] == DIGEST
            while dispatch.scheduler.active:
                await asyncio.sleep(0.05)

    pytest.importorskip("libvirt")
    run(scenario())


def test_a_job_whose_image_goes_as_it_starts_waits_and_counts_no_attempt(reachable: Path) -> None:
    taken: list[Ready] = []
    dispatches: list[Dispatch] = []

    def take_the_image() -> None:
        """The pass has decided to start the job, and its task has not run yet."""
        for dispatch in dispatches:
            if dispatch.scheduler.active and not taken:
                taken.append(dispatch.images.ready.pop("tiny"))

    async def scenario() -> None:
        async with dispatching(reachable, on_change=take_the_image) as (dispatch, store):
            while "tiny" not in dispatch.images.ready:
                await asyncio.sleep(0.05)
            dispatches.append(dispatch)
            job = await accepted(dispatch, store)
            dispatch.add(job)
            while not taken or dispatch.scheduler.active:
                await asyncio.sleep(0.05)
            assert list(dispatch.scheduler.pending) == [job.id]
            assert (await store.ask("job", job=job.id))["attempts"] == []

            dispatch.images.ready["tiny"] = taken[0]
            dispatch.scheduler.pump()
            while not (tried := (await store.ask("job", job=job.id))["attempts"]):
                await asyncio.sleep(0.05)
            assert [(each["attempt"], each["image_digest"]) for each in tried] == [(1, DIGEST)]
            while dispatch.scheduler.active:
                await asyncio.sleep(0.05)

    pytest.importorskip("libvirt")
    run(scenario())


def test_a_version_that_the_host_could_not_test_is_tested_anew(
    reachable: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with dispatching(reachable, MAP.replace("source,", "source, boot_test: true,")) as (dispatch, _store):
            while caplog.text.count("could not be tested in 1 tries") < 2:
                await asyncio.sleep(0.05)
            assert dispatch.images.failed == {}, "it is not refused"

    pytest.importorskip("libvirt")
    monkeypatch.setattr(boottest, "TRIES", 1)
    with caplog.at_level(logging.ERROR):
        run(scenario())


def test_an_attempt_of_another_back_end_is_cleaned_by_that(reachable: Path) -> None:
    async def scenario() -> None:
        async with dispatching(reachable) as (dispatch, store):
            job = await accepted(dispatch, store)
            await store.change("start", job=job.id, attempt=1, backend="noop", host="here", at=1.0)
            id = AttemptId(dispatch.owner, job.id, 1)
            vm = reachable / "state" / "noop" / id.name
            vm.write_text("running")
            dispatch.adopt(Active(job, id, since=time.monotonic()), 0, Backend.NOOP)
            while id in [active.id for active in dispatch.scheduler.active.values()]:
                await asyncio.sleep(0.05)
            assert not vm.exists()

    run(scenario())
