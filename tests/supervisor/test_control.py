"""The control socket: what it answers to what is no command, and what it leaves."""

from __future__ import annotations

import asyncio
import grp
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from solstice.errors import UsageError
from solstice.protocol.lines import Message, decode, encode
from solstice.supervisor import control
from solstice.supervisor.control import Control


async def greet(asked: Message) -> Any:
    return f"hello {asked['name']}"


async def refuse(_asked: Message) -> Any:
    raise UsageError("it", "is so", "do that")


def exchange(path: Path, *lines: bytes) -> list[Message]:
    """What comes back for these lines on one connection, and that the socket is right and gone afterwards."""

    async def scenario() -> list[Message]:
        door = Control(path, {"greet": greet, "refuse": refuse})
        await door.start()
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"".join(lines))
        writer.write_eof()
        answers = (await asyncio.wait_for(reader.read(), 10)).splitlines()
        writer.close()
        await door.close()
        assert not path.exists()
        return [decode(answer) for answer in answers]

    return asyncio.run(scenario())


def test_two_requests_on_one_connection_are_answered_in_order(tmp_path: Path) -> None:
    asked = [encode({"v": 1, "cmd": "greet", "name": name}) for name in ("a", "b")]
    assert [answer["result"] for answer in exchange(tmp_path / "s", *asked)] == ["hello a", "hello b"]


def test_another_version_or_command_is_told_what_there_is(tmp_path: Path) -> None:
    for asked in ({"v": 2, "cmd": "greet"}, {"v": 1, "cmd": "dance"}):
        (answer,) = exchange(tmp_path / "s", encode(asked))
        assert not answer["ok"]
        assert "greet, refuse" in answer["error"]


def test_a_refusal_is_one_sentence(tmp_path: Path) -> None:
    (answer,) = exchange(tmp_path / "s", encode({"v": 1, "cmd": "refuse"}))
    assert answer == {"v": 1, "ok": False, "error": "it: is so (do that)"}


def test_garbage_ends_the_connection_and_nothing_else(tmp_path: Path) -> None:
    assert exchange(tmp_path / "s", b"garbage\n", encode({"v": 1, "cmd": "greet", "name": "x"})) == []


def test_a_client_that_asks_nothing_is_let_go_at_the_close(tmp_path: Path) -> None:
    async def scenario() -> None:
        door = Control(tmp_path / "s", {"greet": greet})
        await door.start()
        reader, writer = await asyncio.open_unix_connection(tmp_path / "s")
        # answered once, so it is not merely in the backlog
        writer.write(encode({"v": 1, "cmd": "greet", "name": "a"}))
        await asyncio.wait_for(reader.readline(), 10)
        await door.close()
        assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()

    asyncio.run(scenario())


def test_a_client_that_leaves_in_the_middle_of_a_line_costs_the_others_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        door = Control(tmp_path / "s", {"greet": greet})
        await door.start()
        _reader, leaver = await asyncio.open_unix_connection(tmp_path / "s")
        leaver.write(b'{"v": 1, "cm')
        leaver.transport.abort()
        reader, writer = await asyncio.open_unix_connection(tmp_path / "s")
        writer.write(encode({"v": 1, "cmd": "greet", "name": "a"}))
        assert decode(await asyncio.wait_for(reader.readline(), 10))["result"] == "hello a"
        writer.close()
        await door.close()

    asyncio.run(scenario())


def test_what_a_dead_supervisor_left_at_the_sockets_place_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "s").touch()
    (answer,) = exchange(tmp_path / "s", encode({"v": 1, "cmd": "greet", "name": "a"}))
    assert answer["ok"]


def test_a_client_that_leaves_is_not_waited_for(tmp_path: Path) -> None:
    async def scenario() -> None:
        begun, ended = asyncio.Event(), asyncio.Event()

        async def long(_asked: Message) -> Any:
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        door = Control(tmp_path / "s", {"long": long})
        await door.start()
        _reader, writer = await asyncio.open_unix_connection(tmp_path / "s")
        writer.write(encode({"v": 1, "cmd": "long"}))
        await begun.wait()
        writer.close()
        async with asyncio.timeout(10):
            await ended.wait()
        await door.close()

    asyncio.run(scenario())


@pytest.mark.skipif(os.getuid() != 0, reason="only root may give a file to any group")
def test_the_socket_belongs_to_the_group_that_may_steer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group = grp.getgrnam("daemon")
    monkeypatch.setattr(control, "GROUP", group.gr_name)

    async def scenario() -> None:
        door = Control(tmp_path / "s", {})
        await door.start()
        assert (tmp_path / "s").stat().st_gid == group.gr_gid
        await door.close()

    asyncio.run(scenario())
