"""What fits: every resource on its own, and nothing over any limit whatever is asked for."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from solstice.model import Resources
from solstice.supervisor.capacity import Claim, Limits, Resource, Usage

LIMITS = Limits(
    slots=4, per_image={"a": 2}, booting=3, cpus=8, memory_mib=8192, disk_mib=100 << 10, disk_floor_mib=2048
)
PLENTY = 90 << 10
SMALL = Resources(1, 1024)


def used(limits: Limits, *claims: Claim, booting: bool = False, free: int = PLENTY) -> Usage:
    usage = Usage(limits, free)
    for claim in claims:
        usage.add(claim, booting=booting)
    return usage


@pytest.mark.parametrize(
    ("usage", "wanted", "resource", "text"),
    [
        (used(LIMITS, *[Claim("b", SMALL)] * 4), SMALL, Resource.SLOTS, "all slots of this host are taken, 4"),
        (used(LIMITS, *[Claim("a", SMALL)] * 2), SMALL, Resource.LABEL, "all slots of a are taken, 2"),
        (used(LIMITS, *[Claim("b", SMALL)] * 3, booting=True), SMALL, Resource.BOOTING, "as many VMs boot as may, 3"),
        (
            used(LIMITS, Claim("b", Resources(7, 1024))),
            Resources(2, 1),
            Resource.CPUS,
            "wants CPUs: 2, 1 of 8 are free",
        ),
        (
            used(LIMITS, Claim("b", Resources(1, 8000))),
            SMALL,
            Resource.MEMORY,
            "wants 1024 MiB of memory, 192 of 8192 are free",
        ),
        (used(LIMITS, free=2047), SMALL, Resource.DISK, "2047 MiB of disk are free, less than the floor of 2048"),
        (
            used(LIMITS, Claim("b", Resources(1, 1, 80))),
            Resources(1, 1, 10),
            Resource.DISK,
            "wants 10240 MiB of disk, 8192 are neither promised nor below the floor",
        ),
    ],
)
def test_each_resource_has_its_own_obstacle(usage: Usage, wanted: Resources, resource: Resource, text: str) -> None:
    obstacle = usage.obstacle(Claim("a", wanted))
    assert obstacle is not None
    assert obstacle.resource is resource
    assert text in obstacle.text


def test_what_fits_has_no_obstacle() -> None:
    usage = used(LIMITS, Claim("a", SMALL), Claim("b", SMALL))
    assert usage.obstacle(Claim("a", Resources(6, 6144, 80))) is None


def test_a_vm_without_a_declared_disk_needs_the_floor_alone() -> None:
    assert used(LIMITS, Claim("b", Resources(1, 1, 95))).obstacle(Claim("b", SMALL)) is None


def test_a_reservation_takes_size_and_no_slot_and_is_named() -> None:
    usage = Usage(replace(LIMITS, slots=1), PLENTY)
    usage.reserve(Claim("b", Resources(1, 8000)), "7f3a91c2-0d5b")
    obstacle = usage.obstacle(Claim("b", SMALL))
    assert obstacle is not None
    assert obstacle.resource is Resource.MEMORY
    assert "the rest is reserved for job 7f3a91c2" in obstacle.text
    assert usage.full() is None


@pytest.mark.parametrize(
    ("wanted", "variable"),
    [
        (Resources(9, 1), "CPU_OVERCOMMIT"),
        (Resources(1, 8193), "MEMORY_RESERVE"),
        (Resources(1, 1, 99), "DISK_FLOOR"),
    ],
)
def test_what_is_larger_than_the_empty_host_is_impossible(wanted: Resources, variable: str) -> None:
    assert variable in str(LIMITS.impossible(wanted))


def test_what_fills_the_empty_host_is_possible_and_fits_it() -> None:
    largest = Resources(8, 8192, 98)
    assert LIMITS.impossible(largest) is None
    assert used(LIMITS, free=LIMITS.disk_mib).obstacle(Claim("b", largest)) is None


claims = st.builds(
    Claim, st.sampled_from("abc"), st.builds(Resources, st.integers(1, 6), st.integers(1, 9000), st.integers(0, 60))
)


@given(st.lists(claims, max_size=12))
def test_whatever_is_asked_for_no_limit_is_exceeded(wanted: list[Claim]) -> None:
    usage = Usage(LIMITS, PLENTY)
    for claim in wanted:
        if usage.obstacle(claim) is None:
            usage.add(claim, booting=True)
    assert usage.slots <= LIMITS.slots
    assert usage.booting <= LIMITS.booting
    assert usage.cpus <= LIMITS.cpus
    assert usage.memory_mib <= LIMITS.memory_mib
    assert usage.per_image["a"] <= 2
    assert usage.promised_mib <= max(0, PLENTY - LIMITS.disk_floor_mib)
