"""The supervisor's end of the images process, with the real one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil

from solstice.model import Image
from solstice.supervisor.images import Images
from tests.supervisor.scenes import run

DISK = b"\xeb" * (1 << 20)


class Host:
    """The client, and the names of what changed, in order."""

    def __init__(self) -> None:
        self.changes: asyncio.Queue[str] = asyncio.Queue()
        self.images = Images(self.changes.put_nowait)


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
