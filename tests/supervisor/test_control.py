"""The control socket: what it answers to what is no command, and what it leaves."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path
from typing import Any

from solstice.errors import UsageError
from solstice.protocol.lines import Message, decode, encode
from solstice.supervisor.control import Control


async def greet(asked: Message) -> Any:
    return f"hello {asked['name']}"


async def refuse(_asked: Message) -> Any:
    raise UsageError("it", "is so", "do that")


def exchange(path: Path, *lines: bytes) -> list[Message]:
    """What comes back for these lines on one connection, and that the socket is right and gone afterwards."""

    async def scenario() -> list[Message]:
        control = Control(path, {"greet": greet, "refuse": refuse})
        await control.start()
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"".join(lines))
        writer.write_eof()
        answers = (await asyncio.wait_for(reader.read(), 10)).splitlines()
        writer.close()
        await control.close()
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
