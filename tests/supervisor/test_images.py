"""The supervisor's end of the images process, with the real one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from solstice.images.messages import Candidate
from solstice.images.obtain import obtain
from solstice.model import Image
from solstice.supervisor.images import Images
from tests.supervisor.scenes import run

DISK = b"\xeb" * (1 << 20)


class Host:
    """The client, and the names of what changed, in order."""

    def __init__(self) -> None:
        self.changes: asyncio.Queue[str] = asyncio.Queue()
        self.candidates: asyncio.Queue[Candidate] = asyncio.Queue()
        self.images = Images(self.changes.put_nowait, self.candidates.put_nowait)


def image(name: str, folder: Path) -> Image:
    return Image(name, f"file://{folder}/{name}.source", folder / f"{name}.img")


def process() -> psutil.Process:
    (found,) = [child for child in psutil.Process().children() if "solstice: images" in " ".join(child.cmdline())]
    return found


@asynccontextmanager
async def running(*wanted: Image) -> AsyncIterator[Host]:
    host = Host()
    host.images.fetch(wanted)
    assert [host.images.state(each.name) for each in wanted] == ["waiting"] * len(wanted)
    host.images.start()
    try:
        yield host
    finally:
        await host.images.close()


def test_what_became_of_each_image_is_known_and_told(tmp_path: Path) -> None:
    (tmp_path / "good.source").write_bytes(DISK)

    async def scenario() -> None:
        async with running(image("bad", tmp_path), image("good", tmp_path)) as host:
            assert [await host.changes.get(), await host.changes.get()] == ["bad", "good"]
            assert host.images.state("good") == "ready"
            assert host.images.ready["good"].path == (tmp_path / "good.img").resolve() != tmp_path / "good.img"
            assert host.images.state("bad").startswith("failed: ")
            assert "bad.source" in host.images.state("bad")

    run(scenario())
    assert (tmp_path / "good.img").read_bytes() == DISK


def test_a_killed_process_is_started_again_and_told_what_to_fetch(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(image("late", tmp_path)) as host:
            await host.changes.get()
            assert host.images.state("late").startswith("failed: ")
            (tmp_path / "late.source").write_bytes(DISK)
            first = process()
            first.kill()
            await host.changes.get()
            assert host.images.state("late") == "ready"
            assert process().pid != first.pid

    run(scenario())


def test_an_image_that_was_ready_and_is_gone_is_ready_no_more(tmp_path: Path) -> None:
    source, copy = tmp_path / "lost.source", tmp_path / "lost.img"
    source.write_bytes(DISK)

    async def scenario() -> None:
        async with running(image("lost", tmp_path)) as host:
            await host.changes.get()
            assert host.images.state("lost") == "ready"
            source.unlink()
            copy.resolve().unlink()
            process().kill()
            await host.changes.get()
            assert host.images.state("lost").startswith("failed: ")

    run(scenario())


def test_the_process_ends_with_its_client(tmp_path: Path) -> None:
    async def scenario() -> None:
        (tmp_path / "good.source").write_bytes(DISK)
        async with running(image("good", tmp_path)) as host:
            await host.changes.get()
            child = process()
        assert not child.is_running()

    run(scenario())


def test_a_new_version_is_ready_when_it_has_passed_its_test(tmp_path: Path) -> None:
    (tmp_path / "new.source").write_bytes(DISK)

    async def scenario() -> None:
        async with running(replace(image("new", tmp_path), boot_test=True)) as host:
            candidate = await host.candidates.get()
            assert host.images.state("new").startswith("being tested")
            assert not (tmp_path / "new.img").exists()
            host.images.tested(candidate, True, "")
            await host.changes.get()
            assert host.images.state("new") == "ready"
            assert host.images.ready["new"].digest == f"sha256:{candidate.path.name}"

    run(scenario())


def test_a_version_that_did_not_boot_is_a_failed_image_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "new.source").write_bytes(DISK)

    async def scenario() -> None:
        async with running(replace(image("new", tmp_path), boot_test=True)) as host:
            host.images.tested(await host.candidates.get(), False, "its runner said nothing")
            await host.changes.get()
            assert "its runner said nothing" in host.images.state("new")
            assert "new" not in host.images.ready

    run(scenario())


def test_a_child_that_was_killed_during_a_test_asks_for_it_again(tmp_path: Path) -> None:
    (tmp_path / "new.source").write_bytes(DISK)

    async def scenario() -> None:
        async with running(replace(image("new", tmp_path), boot_test=True)) as host:
            first = await host.candidates.get()
            process().kill()
            assert await host.candidates.get() == first
            host.images.tested(first, True, "")
            await host.changes.get()
            assert host.images.state("new") == "ready"

    run(scenario())


def test_a_failed_image_is_looked_at_again_when_somebody_says_so_or_a_job_waits(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(image("late", tmp_path)) as host:
            await host.changes.get()
            host.images.look_again("late")
            await host.changes.get()
            assert host.images.failed["late"].retry_in > 10.0
            (tmp_path / "late.source").write_bytes(DISK)
            host.images.want("late")
            await host.changes.get()
            assert host.images.state("late") == "ready"

    run(scenario())


def test_a_version_that_another_process_made_is_taken_when_it_is_said(tmp_path: Path) -> None:
    (tmp_path / "new.source").write_bytes(DISK)

    async def scenario() -> None:
        async with running(image("new", tmp_path)) as host:
            await host.changes.get()
            old = host.images.ready["new"]
            (tmp_path / "new.source").write_bytes(DISK + DISK)
            await asyncio.to_thread(obtain, image("new", tmp_path), lambda _count, _size: None, refresh=True)
            host.images.look_again("new")
            await host.changes.get()
            new = host.images.ready["new"]
            assert (new.virtual_size, new.path == old.path) == (2 * old.virtual_size, False)

    run(scenario())


def test_a_refresh_that_fails_is_told_beside_what_is_ready(tmp_path: Path) -> None:
    (tmp_path / "old.source").write_bytes(DISK)

    async def scenario() -> None:
        async with running(replace(image("old", tmp_path), refresh=0.5)) as host:
            await host.changes.get()
            (tmp_path / "old.source").unlink()
            while host.images.state("old") == "ready":
                await asyncio.sleep(0.05)
            assert "ready, not refreshed: " in host.images.state("old")
            assert "old.source" in host.images.state("old")
            assert "old" in host.images.ready

    run(scenario())


def test_the_child_asks_the_proxy_of_its_supervisors_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: asyncio.Queue[bytes] = asyncio.Queue()

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.put_nowait(await reader.readline())
        writer.close()

    async def scenario() -> None:
        server = await asyncio.start_server(proxy, "127.0.0.1", 0)
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        far = replace(image("far", tmp_path), source="http://images.invalid/disk.img")
        async with server, running(far):
            assert await asked.get() == b"GET http://images.invalid/disk.img HTTP/1.1\r\n"

    run(scenario())
