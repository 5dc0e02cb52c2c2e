"""Boot tests of new versions, by real workers on the noop back end, on which no runner ever says hello."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from solstice.errors import Cause, InfraError, Side
from solstice.host.places import Places
from solstice.images.messages import Candidate
from solstice.model import Backend, DiskFormat, Image, Resources
from solstice.protocol import order, reports
from solstice.supervisor import boottest
from solstice.supervisor.boottest import BootTests
from tests.supervisor.hosts import LIMITS, Host
from tests.supervisor.jobs import job
from tests.supervisor.scenes import OWNER, forkserver, run

IMAGE = Image("tiny", "", Path("/tiny.img"))
NOBODY_LISTENS = "qemu+unix:///system?socket=/nonexistent/libvirt-sock"


@asynccontextmanager
async def ready_to_test(folder: Path, host: Host, **hypervisor: str) -> AsyncIterator[BootTests]:
    places = Places(folder / "state", folder / "run")
    places.make()
    settings = order.Hypervisor(Backend(hypervisor.get("backend", "noop")), hypervisor.get("uri", str(places.noop)))
    async with forkserver() as server:
        yield BootTests(OWNER, places, host.scheduler, server, lambda: settings)


def candidate(folder: Path, name: str = "disk") -> Candidate:
    path = folder / name
    path.write_bytes(bytes(1 << 20))
    return Candidate("tiny", path, DiskFormat.RAW, 1 << 20)


def left(folder: Path) -> list[Path]:
    return [path for path in (folder / "state" / "jobs").rglob("*") if path.is_file()]


def test_a_version_whose_runner_says_nothing_does_not_pass_and_leaves_nothing(reachable: Path) -> None:
    async def scenario() -> None:
        host = Host()
        async with ready_to_test(reachable, host) as tests:
            verdict = await tests.test(IMAGE, candidate(reachable), 0.2)
            assert verdict is not None
            assert not verdict.ok
            assert "did not say hello" in verdict.why
            assert tests.running == set()
            assert host.scheduler.errands == {}
            assert left(reachable) == []

    run(scenario())


def test_a_test_counts_against_capacity_and_waits_for_its_room(reachable: Path) -> None:
    async def scenario() -> None:
        host = Host(replace(LIMITS, slots=1))
        first, second = job(), job()
        await host.add(first)
        async with ready_to_test(reachable, host) as tests:
            test = asyncio.create_task(tests.test(IMAGE, candidate(reachable), 0.2))
            await host.settle()
            (id,) = tests.running
            assert host.scheduler.is_short_for(id)
            await host.add(second)
            await host.end(first)
            assert host.running == set(), "the next job does not take the room of the test"
            assert not host.scheduler.is_short_for(id)
            await test
            await host.settle()
            assert host.running == {second.id}
            await host.end(second)

    run(scenario())


def test_two_tests_that_wait_for_one_slot_are_made_one_after_the_other(reachable: Path) -> None:
    async def scenario() -> None:
        host = Host(replace(LIMITS, slots=1))
        waiting = job()
        async with ready_to_test(reachable, host) as tests:
            both = [asyncio.create_task(tests.test(IMAGE, candidate(reachable, name), 0.2)) for name in "ab"]
            await asyncio.sleep(0)
            first, second = host.scheduler.errands
            assert not host.scheduler.is_short_for(first)
            assert host.scheduler.is_short_for(second)
            await host.add(waiting)
            await asyncio.gather(*both)
            await host.settle()
            assert host.running == {waiting.id}
            await host.end(waiting)

    run(scenario())


def test_one_version_is_tested_once_at_a_time(reachable: Path) -> None:
    async def scenario() -> None:
        async with ready_to_test(reachable, Host()) as tests:
            test = asyncio.create_task(tests.test(IMAGE, candidate(reachable), 0.5))
            await asyncio.sleep(0)
            assert await tests.test(IMAGE, candidate(reachable), 0.5) is None
            assert await test is not None

    run(scenario())


def test_a_hypervisor_that_does_not_answer_says_nothing_about_the_image(
    reachable: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with ready_to_test(reachable, Host(), backend="libvirt", uri=NOBODY_LISTENS) as tests:
            test = asyncio.create_task(tests.test(IMAGE, candidate(reachable), 0.5))
            while "cannot be tested now" not in caplog.text:
                await asyncio.sleep(0.05)
            assert not test.done()
            test.cancel()
            await asyncio.wait({test})

    pytest.importorskip("libvirt")
    with caplog.at_level(logging.ERROR):
        run(scenario())


def refuse(folder: Path, why: str) -> None:
    """Let the hypervisor refuse every VM of the image."""
    (folder / "state" / "noop" / "refuse-tiny").write_text(why)


def test_while_a_test_waits_for_its_next_try_a_job_takes_its_room(
    reachable: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        host = Host(replace(LIMITS, slots=1))
        waiting = job()
        async with ready_to_test(reachable, host) as tests:
            refuse(reachable, "no such network")
            test = asyncio.create_task(tests.test(IMAGE, candidate(reachable), 0.2))
            while "cannot be tested now" not in caplog.text:
                await asyncio.sleep(0.02)
            assert tests.running == set(), "a pass over the host may take what was left of its VM"
            await host.add(waiting)
            assert host.running == {waiting.id}
            await host.end(waiting)
            test.cancel()
            await asyncio.wait({test})

    with caplog.at_level(logging.ERROR):
        run(scenario())


def test_a_host_that_fails_each_try_ends_the_test_without_a_verdict(
    reachable: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        host = Host()
        async with ready_to_test(reachable, host) as tests:
            refuse(reachable, "no such network")
            with pytest.raises(InfraError, match="no such network"):
                await tests.test(IMAGE, candidate(reachable), 0.2)
            assert host.scheduler.errands == {}

    monkeypatch.setattr(boottest, "RETRY_DELAY", 0.0)
    monkeypatch.setattr(boottest, "TRIES", 3)
    with caplog.at_level(logging.INFO, "solstice.supervisor.boottest"):
        run(scenario())
    vms = [vars(record)["vm"] for record in caplog.records if "vm" in vars(record)]
    assert len(vms) == len(set(vms)) == 3, "each try has a VM of its own"
    assert "could not be tested in 3 tries" in caplog.text


@pytest.mark.parametrize("cause", [cause for cause in Cause if cause.side is Side.INFRA])
def test_a_version_is_refused_for_its_silence_alone(cause: Cause) -> None:
    found = boottest.judged(reports.Failed(cause, "so it was"))
    assert isinstance(found, boottest.Verdict) is (cause is Cause.BOOT_TIMEOUT)
    assert found.why == "so it was"


def test_a_version_that_can_never_fit_on_this_host_does_not_pass(reachable: Path) -> None:
    async def scenario() -> None:
        host = Host()
        image = replace(IMAGE, resources=Resources(cpus=1000))
        async with ready_to_test(reachable, host) as tests:
            verdict = await tests.test(image, candidate(reachable), 0.2)
            assert verdict is not None
            assert not verdict.ok
            assert "this host gives 100 at most" in verdict.why
            assert host.scheduler.errands == {}

    run(scenario())


def test_what_a_failed_worker_left_is_taken_away(reachable: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        jobs = reachable / ("too-long-for-a-socket" * 5) / "state" / "jobs"
        jobs.mkdir(parents=True)
        noop = order.Hypervisor(Backend.NOOP, uri=str(reachable))
        async with forkserver() as server:
            places = Places(jobs.parent, reachable / "run")
            tests = BootTests(OWNER, places, Host().scheduler, server, lambda: noop)
            test = asyncio.create_task(tests.test(IMAGE, candidate(reachable), 0.2))
            while "cannot be tested now" not in caplog.text:
                await asyncio.sleep(0.02)
            assert "path too long" in caplog.text
            assert list(jobs.iterdir()) == []
            test.cancel()
            await asyncio.wait({test})

    with caplog.at_level(logging.ERROR):
        run(scenario())


def test_a_test_that_is_cancelled_takes_its_vm_away(reachable: Path) -> None:
    async def scenario() -> None:
        host = Host()
        async with ready_to_test(reachable, host) as tests:
            test = asyncio.create_task(tests.test(IMAGE, candidate(reachable), 60.0))
            while not list((reachable / "state" / "jobs").glob("*/*/vm/*")):
                await asyncio.sleep(0.02)
            test.cancel()
            await asyncio.wait({test})
            assert list((reachable / "state" / "jobs").glob("*/*/vm")) == []
            assert list((reachable / "state" / "noop").iterdir()) == []
            assert host.scheduler.errands == {}

    run(scenario())
