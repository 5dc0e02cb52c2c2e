from __future__ import annotations

import re
import uuid
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from solstice.errors import Cause, Side
from solstice.model import OWNER_DIGITS, AttemptId, DiskFormat, VmSpec

JOB = "7f3a91c2-0a4e-4d1b-9c55-1f2e3d4c5b6a"
OWNER = "0123456789ab"
# illumos: zonename_t has 64 bytes with the NUL; hostname labels have 63
MAX_NAME = 63

attempts = st.builds(
    AttemptId,
    owner=st.text("0123456789abcdef", min_size=OWNER_DIGITS, max_size=OWNER_DIGITS),
    job=st.uuids().map(str),
    attempt=st.integers(0, 999),
)


@given(attempts)
def test_a_name_is_parsed_back_to_its_attempt(attempt: AttemptId) -> None:
    assert AttemptId.parse(attempt.name) == attempt


@given(attempts, attempts)
def test_two_attempts_share_neither_name_nor_uuid(one: AttemptId, other: AttemptId) -> None:
    assert (one == other) is (one.name == other.name) is (one.uuid == other.uuid)


@given(attempts)
def test_every_name_is_one_that_a_domain_a_zone_and_a_host_may_have(attempt: AttemptId) -> None:
    for name in (attempt.name, attempt.hostname):
        assert re.fullmatch(r"[a-z][a-z0-9-]*[a-z0-9]", name)
        assert len(name) <= MAX_NAME
    assert str(uuid.UUID(attempt.uuid)) == attempt.uuid


def test_the_longest_name_has_62_characters() -> None:
    assert len(AttemptId("f" * OWNER_DIGITS, JOB, 999).name) == 62


@given(st.text())
def test_what_does_not_come_from_us_is_nobodys(name: str) -> None:
    parsed = AttemptId.parse(name)
    assert parsed is None or parsed.name == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "debian12",
        "solstice",
        f"solstice-{OWNER}-{JOB}",
        f"solstice-{OWNER}-{JOB}-",
        f"solstice-{OWNER}-{JOB}-1\n",
        f"\nsolstice-{OWNER}-{JOB}-1",
        f"solstice-{OWNER}-{JOB}-1000",
        f"solstice-{OWNER}-{JOB}--1",
        f"solstice-{OWNER}-{JOB}-\u0661",
        f"solstice-{OWNER[:-1]}-{JOB}-1",
        f"solstice-{OWNER.upper()}-{JOB}-1",
        f"solstice-{OWNER}-{JOB.upper()}-1",
        f"solstice-{OWNER}-../../../../../../../etc/passwd/-1",
        f"Solstice-{OWNER}-{JOB}-1",
        f"x-solstice-{OWNER}-{JOB}-1",
    ],
)
def test_a_name_that_only_resembles_ours_is_nobodys(name: str) -> None:
    assert AttemptId.parse(name) is None


def test_the_short_name_is_what_people_see_of_a_job() -> None:
    attempt = AttemptId(OWNER, JOB, 2)
    assert attempt.short == "7f3a91c2"
    assert attempt.hostname == "solstice-7f3a91c2"


def test_all_that_a_vm_needs_on_disk_lies_in_its_directory() -> None:
    vm = VmSpec(AttemptId(OWNER, JOB, 1), "tiny", Path("/base.qcow2"), DiskFormat.QCOW2, Path("/state/vm"))
    files = [vm.overlay, vm.seed, vm.runner_socket, vm.console_socket]
    assert {file.parent for file in files} == {vm.directory}
    assert len(set(files)) == len(files)


@pytest.mark.parametrize("cause", Cause)
def test_every_cause_says_whose_fault_it_is_what_happened_and_what_to_do(cause: Cause) -> None:
    assert cause.side in Side
    assert cause.sentence
    assert cause.remedy
