"""What a dead worker left is removed, its records stay, and both orders may be repeated."""

from __future__ import annotations

import secrets
import shutil
import uuid
from pathlib import Path

import pytest

from solstice.host import places
from solstice.hypervisors import router
from solstice.model import AttemptId, DiskFormat, VmSpec
from solstice.protocol import attach, order
from solstice.worker import cleanup

OWNER = "0123456789ab"


@pytest.fixture
def jobs(reachable: Path) -> Path:
    folder = reachable / "jobs"
    folder.mkdir()
    return folder


def directory(jobs: Path, owner: str = OWNER) -> VmSpec:
    """An attempt with a log and a half-made VM directory, of which the hypervisor knows nothing."""
    id = AttemptId(owner, str(uuid.uuid4()), 1)
    vm = VmSpec(id, "tiny", jobs / "base", DiskFormat.QCOW2, places.vm_of(jobs, id))
    vm.directory.mkdir(parents=True)
    vm.overlay.write_text("a disk")
    log(jobs, vm).write_text("what the job printed")
    return vm


def running(noop: order.Hypervisor, jobs: Path, owner: str = OWNER) -> VmSpec:
    """The same, and the VM runs."""
    vm = directory(jobs, owner)
    hypervisor = router.open(noop)
    hypervisor.prepare(vm)
    hypervisor.start(vm.id)
    return vm


def log(jobs: Path, vm: VmSpec) -> Path:
    return places.record_of(jobs, vm.id) / "log"


def owned(noop: order.Hypervisor, owner: str = OWNER) -> list[AttemptId]:
    return router.open(noop).list_owned(owner)


def test_clean_removes_the_vm_of_one_attempt_and_leaves_its_log_and_all_others(
    noop: order.Hypervisor, jobs: Path
) -> None:
    vm, other = running(noop, jobs), running(noop, jobs)
    cleanup.clean(order.Clean(noop, vm.id, vm.directory))
    assert not vm.directory.exists()
    assert log(jobs, vm).read_text() == "what the job printed"
    assert owned(noop) == [other.id]
    assert other.overlay.exists()


def test_clean_may_be_repeated_and_asked_for_an_attempt_that_never_was(noop: order.Hypervisor, jobs: Path) -> None:
    vm = running(noop, jobs)
    what = order.Clean(noop, vm.id, vm.directory)
    cleanup.clean(what)
    cleanup.clean(what)
    unknown = AttemptId(OWNER, str(uuid.uuid4()), 1)
    cleanup.clean(order.Clean(noop, unknown, places.vm_of(jobs, unknown)))
    assert owned(noop) == []
    assert log(jobs, vm).exists()


def test_a_list_names_vms_and_whatever_lies_in_a_record_and_removes_nothing(noop: order.Hypervisor, jobs: Path) -> None:
    vm, stray, silent = running(noop, jobs), directory(jobs), directory(jobs)
    shutil.rmtree(silent.directory)
    (silent.directory.parent / attach.JOURNAL).touch()
    wanted = sorted(each.id.name for each in (vm, stray, silent))
    for _ in range(2):
        assert list(cleanup.find(order.List(noop, OWNER, jobs))) == wanted


def test_what_a_list_names_a_clean_removes_and_the_record_stays(noop: order.Hypervisor, jobs: Path) -> None:
    vm, stray = running(noop, jobs), directory(jobs)
    (stray.directory.parent / attach.JOURNAL).touch()
    for name in cleanup.find(order.List(noop, OWNER, jobs)):
        id = AttemptId.parse(name)
        assert id is not None
        cleanup.clean(order.Clean(noop, id, places.vm_of(jobs, id)))
    assert cleanup.find(order.List(noop, OWNER, jobs)) == ()
    assert [log(jobs, each).read_text() for each in (vm, stray)] == ["what the job printed"] * 2


def test_a_damaged_journal_is_kept_and_is_no_trace_of_a_vm(noop: order.Hypervisor, jobs: Path) -> None:
    vm = running(noop, jobs)
    record = vm.directory.parent
    (record / attach.JOURNAL).write_text("nobody wrote this\n")
    cleanup.clean(order.Clean(noop, vm.id, vm.directory))
    assert {path.name for path in record.iterdir()} == {"log", "events.jsonl.bad"}
    assert (record / "events.jsonl.bad").read_text() == "nobody wrote this\n"
    assert cleanup.find(order.List(noop, OWNER, jobs)) == ()


def test_of_a_probe_nothing_stays(noop: order.Hypervisor, jobs: Path) -> None:
    id = AttemptId(OWNER, str(uuid.uuid4()), 0)
    places.vm_of(jobs, id).mkdir(parents=True)
    assert cleanup.find(order.List(noop, OWNER, jobs)) == (id.name,)
    cleanup.clean(order.Clean(noop, id, places.vm_of(jobs, id)))
    assert list(jobs.iterdir()) == []


def test_a_list_does_not_name_the_vms_of_other_owners(noop: order.Hypervisor, jobs: Path, reachable: Path) -> None:
    elsewhere = reachable / "elsewhere"
    other = running(noop, elsewhere, secrets.token_hex(6))
    assert cleanup.find(order.List(noop, OWNER, jobs)) == ()
    assert owned(noop, other.id.owner) == [other.id]
