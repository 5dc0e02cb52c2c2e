"""The supervisor's end of the store, with the real store process."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import psutil
import pytest

from solstice.errors import UsageError
from solstice.supervisor.store import Store, StoreRefused


def run(scenario: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await scenario

    asyncio.run(bounded())


def url(folder: Path) -> str:
    return f"sqlite:///{folder}/solstice.db"


def document() -> dict[str, object]:
    return {"schema_version": "jobrequest.v1", "request_id": str(uuid.uuid4()), "steps": [{"run": "true"}]}


def process() -> psutil.Process:
    (found,) = [child for child in psutil.Process().children() if "store" in " ".join(child.cmdline())]
    return found


def test_what_is_asked_is_answered_and_what_is_refused_raises(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = Store(url(tmp_path))
        await store.open()
        assert await store.change("accept", request=document(), label="l", image="i", at=1.0) == {
            "new": True,
            "state": "accepted",
        }
        with pytest.raises(StoreRefused, match="nonsense"):
            await store.ask("nonsense")
        await store.close()

    run(scenario())


def test_a_question_whose_store_dies_is_answered_by_the_next(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = Store(url(tmp_path))
        await store.open()
        first = process()
        first.suspend()
        asked = [
            asyncio.create_task(store.change("accept", request=document(), label="l", image="i", at=1.0))
            for _ in range(20)
        ]
        await asyncio.sleep(0)
        first.kill()
        answers = await asyncio.gather(*asked)
        assert all(answer["new"] for answer in answers)
        assert (await store.ask("counts"))["counts"]["accepted"] == 20
        await store.close()

    run(scenario())


def test_a_database_that_is_gone_for_a_while_costs_time_and_nothing_else(tmp_path: Path) -> None:
    async def scenario() -> None:
        folder = tmp_path / "state"
        folder.mkdir()
        store = Store(url(folder))
        await store.open()
        folder.rename(tmp_path / "elsewhere")
        process().kill()
        asked = asyncio.create_task(store.change("accept", request=document(), label="l", image="i", at=1.0))
        done, _ = await asyncio.wait({asked}, timeout=2.5)
        assert not done
        (tmp_path / "elsewhere").rename(folder)
        assert (await asked)["new"] is True
        await store.close()

    run(scenario())


def test_a_database_that_cannot_be_opened_at_the_start_is_the_operators_fault(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = Store(url(tmp_path / "missing"))
        with pytest.raises(UsageError, match="the database cannot be used"):
            await store.open()
        await store.close()

    run(scenario())
