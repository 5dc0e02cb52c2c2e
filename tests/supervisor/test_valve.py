"""When the broker may deliver, with deliveries and a connection that the test moves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from solstice.supervisor import valve
from solstice.supervisor.valve import LATE, OPEN, Valve
from tests.supervisor.scenes import run


class Tap:
    """What the valve turns: the connection, as far as it sees it."""

    def __init__(self) -> None:
        self.is_open = True
        self.turns = 0
        self.drops = 0
        self.moved = asyncio.Event()

    def pause(self) -> None:
        self._turn(is_open=False)

    def resume(self) -> None:
        self._turn(is_open=True)

    def drop(self) -> None:
        self.drops += 1

    def _turn(self, *, is_open: bool) -> None:
        self.turns += self.is_open is not is_open
        self.is_open = is_open
        self.moved.set()


class Deliveries:
    """What the valve asks of the intake."""

    def __init__(self) -> None:
        self.taking = 0
        self.age = 0.0

    def oldest(self) -> float:
        return self.age


class Scene:
    def __init__(self, limit: int = 100) -> None:
        self.tap, self.deliveries, self.pending, self.limit = Tap(), Deliveries(), 0, limit
        self.valve = Valve(
            self.tap,  # type: ignore[arg-type]
            self.deliveries,  # type: ignore[arg-type]
            lambda: self.pending,
            lambda: self.limit,
        )

    def look(self, **changes: Any) -> bool:
        for name, value in changes.items():
            setattr(self.deliveries if name in ("taking", "age") else self, name, value)
        self.valve.look()
        return self.tap.is_open


def scenario(act: Callable[[Scene], Coroutine[Any, Any, None]]) -> None:
    async def begin() -> None:
        await act(Scene())

    run(begin())


def test_it_closes_at_the_limit_and_opens_when_a_quarter_has_gone() -> None:
    async def act(scene: Scene) -> None:
        assert scene.look(pending=99)
        assert not scene.look(pending=100)
        assert "PENDING_LIMIT" in scene.valve.state
        assert not scene.look(pending=76)
        assert scene.look(pending=75)
        assert scene.valve.state == OPEN
        assert scene.tap.turns == 2

    scenario(act)


def test_what_is_being_taken_counts_as_waiting() -> None:
    async def act(scene: Scene) -> None:
        assert not scene.look(pending=90, taking=10)
        scene.look(taking=0)

    scenario(act)


def test_a_limit_of_one_opens_when_that_one_is_gone() -> None:
    async def act(scene: Scene) -> None:
        assert not scene.look(limit=1, pending=1)
        assert scene.look(pending=0)

    scenario(act)


def test_a_limit_that_is_raised_opens_it() -> None:
    async def act(scene: Scene) -> None:
        assert not scene.look(pending=100)
        assert scene.look(limit=200)

    scenario(act)


def test_a_delivery_that_is_not_taken_in_time_closes_it_by_itself() -> None:
    async def act(scene: Scene) -> None:
        scene.tap.moved.clear()
        scene.look(taking=1)
        scene.deliveries.age = valve.PATIENCE
        await scene.tap.moved.wait()
        assert not scene.tap.is_open
        assert scene.valve.state == LATE
        assert scene.look(taking=0, age=0.0)

    scenario(act)


def test_after_five_minutes_deliveries_go_back_once() -> None:
    async def act(scene: Scene) -> None:
        for age in (valve.HOLD_LIMIT - 1, valve.HOLD_LIMIT, valve.HOLD_LIMIT + 1):
            assert not scene.look(taking=2, age=age)
        assert scene.tap.drops == 1
        assert scene.look(taking=0, age=0.0)
        scene.look(taking=1, age=valve.HOLD_LIMIT)
        assert scene.tap.drops == 2
        scene.look(taking=0, age=0.0)

    scenario(act)


def test_draining_and_stopping_it_stays_closed_whatever_comes() -> None:
    async def act(scene: Scene) -> None:
        scene.valve.draining = True
        assert not scene.look()
        scene.valve.draining = False
        assert scene.look()
        scene.valve.close()
        assert not scene.look(pending=0)
        assert scene.valve.state == "stopping"

    scenario(act)
