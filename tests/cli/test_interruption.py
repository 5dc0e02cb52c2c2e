"""What the command line does when something leaves early: a signal, the reader of its output, the supervisor."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from solstice.cli.follow import Printer, harmless
from solstice.cli.run import finished
from solstice.errors import Cause
from solstice.lifecycle import JobState
from solstice.model import Outcome
from tests.real.libvirtd import Libvirtd, virsh

ROOT = Path(__file__).resolve().parents[2]
# As `run` and `enqueue --wait` do: follow beside the job, and exit as the job did.
_FOLLOW = """
import sys
from pathlib import Path
from solstice.cli import follow
with follow.reader_may_leave():
    follow.follow(Path(sys.argv[1]), lambda: True)
sys.exit(7)
"""


def record(jobs: Path, job: str, text: bytes, name: str = "log") -> Path:
    attempt = jobs / job / "1"
    attempt.mkdir(parents=True)
    (attempt / name).write_bytes(text)
    return attempt.parent


def python(*words: str, stdout: int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]},
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_job_that_a_signal_stopped_did_not_finish() -> None:
    assert finished(Outcome(JobState.ERRORED, Cause.HOST_STOPPING, "the supervisor was asked to stop")) is None
    assert finished(None) is None


@pytest.mark.parametrize("cause", [None, *sorted(set(Cause) - {Cause.HOST_STOPPING})])
def test_every_other_end_is_the_jobs_own(cause: Cause | None) -> None:
    outcome = Outcome(JobState.ERRORED if cause else JobState.SUCCEEDED, cause)
    assert finished(outcome) is outcome


def test_the_exit_code_is_the_jobs_own_though_nobody_reads_its_log(tmp_path: Path) -> None:
    records = record(tmp_path, "job", b"line\n" * 100_000)
    reader, writer = os.pipe()
    os.close(reader)
    done = python("-c", _FOLLOW, str(records), stdout=writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (7, "")


class Terminal(io.BytesIO):
    def isatty(self) -> bool:
        return True


def test_a_control_in_two_pieces_does_not_reach_the_terminal(tmp_path: Path) -> None:
    records = record(tmp_path, "job", b"\xc2")
    log, out = records / "1" / "log", Terminal()
    printer = Printer(out)
    printer.show(log)
    with log.open("ab") as more:
        more.write(b"\x9b2J")
    printer.show(log)
    assert b"\xc2\x9b" not in out.getvalue()
    assert out.getvalue() == b"\\xc2\x9b2J"


def test_characters_of_two_bytes_stay() -> None:
    assert harmless("£5 ©é".encode()) == "£5 ©é".encode()


def logs(tmp_path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    places = ("--run-dir", str(tmp_path / "run"), "--state-dir", str(tmp_path))
    return python("-m", "solstice", "logs", *places, *words)


def test_logs_reads_the_state_directory_when_no_supervisor_runs(tmp_path: Path) -> None:
    record(tmp_path / "jobs", "7f3a91c2-0000", b"hello\n")
    record(tmp_path / "jobs", "19be04d7-0000", b"Linux\n", "console.log")
    assert logs(tmp_path, "7f3a").stdout == "hello\n"
    assert logs(tmp_path, "7f3a", "-f").stdout == "hello\n"
    assert logs(tmp_path, "19be", "--console").stdout == "Linux\n"


def test_logs_of_an_unknown_job_without_a_supervisor_says_that_none_runs(tmp_path: Path) -> None:
    record(tmp_path / "jobs", "7f3a91c2-0000", b"hello\n")
    done = logs(tmp_path, "../jobs")
    assert done.returncode == 2
    assert "start `solstice serve`" in done.stderr


def test_the_beginning_of_two_ids_is_refused(tmp_path: Path) -> None:
    for job in ("7f3a91c2-0000", "7f3b91c2-0000"):
        record(tmp_path / "jobs", job, b"hello\n")
    done = logs(tmp_path, "7f3")
    assert (done.returncode, done.stdout) == (2, "")
    assert "give more of the id" in done.stderr


@pytest.mark.libvirt
def test_an_interrupted_run_ends_with_130_and_leaves_nothing(
    reachable: Path, libvirtd: Libvirtd, tiny_image: Path
) -> None:
    image = reachable / "tiny.qcow2"
    shutil.copyfile(tiny_image, image)
    image.chmod(0o444)
    images = reachable / "map.yaml"
    images.write_text(f"default_label: tiny\nimages:\n  tiny:\n    source: {image}\n    local_path: {image}\n")
    run = subprocess.Popen(
        [sys.executable, "-m", "solstice", "run", "--", "echo started; sleep 600"],
        cwd=ROOT,
        env={
            "PATH": os.environ["PATH"],
            "ORCH_CONFIG": str(images),
            "SOLSTICE_BACKEND": "libvirt",
            "SOLSTICE_RUN_DIR": str(reachable / "run"),
            "LIBVIRT_URI": libvirtd.uri,
            "LIBVIRT_DOMAIN_TYPE": "qemu",
            "DRAIN_TIMEOUT": "0",
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert run.stdout is not None
        assert "started\n" in iter(run.stdout.readline, "")
        own = _state_of(run.pid)
        owner = (own / "owner").read_text().strip()
        run.send_signal(signal.SIGINT)
        _rest, said = run.communicate(timeout=120)
    finally:
        if run.poll() is None:
            run.terminate()
            run.communicate(timeout=120)
    assert run.returncode == 130, said
    assert "interrupted" in said
    assert not own.exists()
    assert owner not in virsh("list", "--all", "--name").stdout


def _state_of(pid: int) -> Path:
    """The state directory that this process holds; others may come and go beside it."""
    for lock in Path("/var/tmp").glob("solstice-*/lock"):
        with contextlib.suppress(FileNotFoundError):
            if lock.read_text().strip() == str(pid):
                return lock.parent
    raise AssertionError(f"pid {pid} holds no state directory")
