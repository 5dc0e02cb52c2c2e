from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from solstice.errors import UsageError
from solstice.host.places import Places, record_of, vm_of
from solstice.model import AttemptId

ID = AttemptId("0123456789ab", "7f3a91c2-0a4e-4d1b-9c55-1f2e3d4c5b6a", 1)


@pytest.fixture
def places(reachable: Path) -> Places:
    made = Places(reachable / "state", reachable / "run")
    made.make()
    return made


def test_qemus_user_may_pass_through_the_directories_but_not_look(places: Places) -> None:
    for directory in (places.state, places.jobs, places.noop, places.run):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o711


def test_making_them_twice_changes_nothing(places: Places) -> None:
    (places.jobs / "kept").touch()
    places.make()
    assert (places.jobs / "kept").exists()


def test_the_vms_files_lie_below_the_record_that_stays(places: Places) -> None:
    assert places.record(ID) == record_of(places.jobs, ID) == places.jobs / ID.job / "1"
    assert places.vm(ID) == vm_of(places.jobs, ID) == places.record(ID) / "vm"


def test_a_state_directory_too_deep_for_a_socket_is_refused_with_the_length_that_fits(reachable: Path) -> None:
    with pytest.raises(UsageError, match="is too deep") as refused:
        Places(reachable / ("x" * 80), reachable / "run").make()
    found = re.search(r"at most (\d+) bytes", str(refused.value))
    assert found
    padding = int(found[1]) - len(os.fsencode(reachable)) - 1
    Places(reachable / ("y" * padding), reachable / "run").make()
    with pytest.raises(UsageError):
        Places(reachable / ("y" * (padding + 1)), reachable / "run").make()


def test_a_directory_that_cannot_be_made_is_named(reachable: Path) -> None:
    (reachable / "f").touch()
    with pytest.raises(UsageError, match=f"cannot make {reachable}/f.*--state-dir"):
        Places(reachable / "f" / "s", reachable / "run").make()


def test_the_owner_id_is_made_once_and_read_ever_after(places: Places) -> None:
    owner = places.owner()
    assert re.fullmatch("[0-9a-f]{12}", owner)
    assert places.owner() == owner
    assert (places.state / "owner").read_text() == f"{owner}\n"


def test_two_hosts_have_two_owner_ids(places: Places, reachable: Path) -> None:
    other = Places(reachable / "other", reachable / "run")
    other.make()
    assert other.owner() != places.owner()


def test_a_second_supervisor_is_refused_with_the_pid_of_the_first(places: Places) -> None:
    refused = pytest.raises(UsageError, match=f"a supervisor with pid {os.getpid()} holds it")
    with places.locked(), refused, places.locked():
        pytest.fail("both hold it")


def test_the_lock_of_a_killed_supervisor_is_free(places: Places) -> None:
    holder = (
        "import os, signal, sys; from pathlib import Path; from solstice.host.places import Places\n"
        "with Places(Path(sys.argv[1]), Path(sys.argv[1])).locked(): os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", holder, places.state], check=False, timeout=60)
    assert done.returncode == -9
    with places.locked():
        assert (places.state / "lock").read_text() == f"{os.getpid()}\n"
