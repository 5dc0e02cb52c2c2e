"""The capacity table: whatever is asked, no limit is ever exceeded."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from solstice.supervisor.capacity import Capacity

NAMES = st.sampled_from(["a", "b", "c"])


@given(st.integers(1, 5), st.dictionaries(NAMES, st.integers(1, 5)), st.lists(NAMES, max_size=30))
def test_no_limit_is_exceeded_and_no_free_slot_is_refused(total: int, limits: dict[str, int], asked: list[str]) -> None:
    capacity = Capacity(total, limits)
    running: list[str] = []
    for image in asked:
        is_full = len(running) == total or running.count(image) >= limits.get(image, total)
        assert (capacity.obstacle(image, running) is not None) == is_full
        if not is_full:
            running.append(image)
    assert len(running) <= total
    assert all(running.count(image) <= limit for image, limit in limits.items())


def test_the_obstacle_names_the_setting() -> None:
    assert "MAX_CONCURRENCY" in str(Capacity(1, {}).obstacle("a", ["b"]))
    assert "CAPACITY_MAP" in str(Capacity(2, {"a": 1}).obstacle("a", ["a"]))
