"""The command line without a server: help, refusals, exit codes, and what may reach a terminal."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from solstice.cli import exits
from solstice.cli.follow import Printer, follow, harmless, newest_log
from solstice.cli.table import table
from solstice.config.settings import SETTINGS

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = [
    "cancel",
    "drain",
    "enqueue",
    "jobs",
    "logs",
    "pause",
    "resume",
    "run",
    "serve",
    "show",
    "status",
    "top",
    "why",
]


def solstice(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "solstice", *words],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "COLUMNS": "200", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_help_of_serve_names_the_variable_beside_each_flag() -> None:
    text = solstice("serve", "--help").stdout
    for setting in SETTINGS:
        assert setting.flag in text
        assert f"[{setting.env};" in text


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help(command: str) -> None:
    done = solstice(command, "--help")
    assert done.returncode == 0
    assert f"solstice {command}" in done.stdout


def test_a_wrong_value_is_refused_with_its_flag() -> None:
    done = solstice("serve", "--max-concurrency", "many")
    assert done.returncode == 2
    assert "--max-concurrency" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_wrong_value_is_refused_with_its_variable() -> None:
    done = solstice("serve", MAX_CONCURRENCY="0")
    assert done.returncode == 2
    assert "MAX_CONCURRENCY" in done.stderr


def test_without_a_supervisor_the_remedy_is_named(tmp_path: Path) -> None:
    for command in (["jobs"], ["status"], ["logs", "abcd"]):
        done = solstice(*command, "--run-dir", str(tmp_path))
        assert done.returncode == 2
        assert "start `solstice serve`" in done.stderr


def test_enqueue_needs_a_command_or_a_file(tmp_path: Path) -> None:
    assert "either --file or a command" in solstice("enqueue").stderr
    both = solstice("enqueue", "--file", str(tmp_path / "x"), "--", "true")
    assert both.returncode == 2


@pytest.mark.parametrize("flag", [["--priority", "0"], ["--cancel-in-progress"], ["--concurrency-group", "g"]])
def test_enqueue_takes_no_flag_of_a_request_beside_a_file(tmp_path: Path, flag: list[str]) -> None:
    done = solstice("enqueue", "--file", str(tmp_path / "x"), *flag)
    assert "--file says all of the request" in done.stderr


@pytest.mark.parametrize("command", [["enqueue"], ["run", "--backend", "noop"]])
def test_flags_of_a_request_are_checked_as_its_fields(command: list[str]) -> None:
    assert "priority: must be a whole number from 0" in solstice(*command, "--priority", "10", "true").stderr
    done = solstice(*command, "--cancel-in-progress", "true")
    assert done.returncode == exits.REJECTED
    assert "concurrency_group: is missing, and cancel_in_progress needs it" in done.stderr


def test_an_unreachable_broker_is_named_without_its_password() -> None:
    done = solstice("enqueue", "--amqp-url", "amqp://me:s3cret@127.0.0.1:1/%2F", "--", "true")
    assert done.returncode == 2
    assert "127.0.0.1:1" in done.stderr
    assert "s3cret" not in done.stderr


def test_an_impossible_request_is_the_senders_fault(tmp_path: Path) -> None:
    done = solstice("run", "--backend", "noop", "--runs-on", "amiga", "--run-dir", str(tmp_path), "--", "true")
    assert done.returncode == exits.REJECTED
    assert "amiga is no label of this host" in done.stderr


def test_run_on_noop_succeeds_and_leaves_nothing(tmp_path: Path) -> None:
    before = set(Path("/var/tmp").glob("solstice-*"))
    done = solstice("run", "--backend", "noop", "--run-dir", str(tmp_path), "--", "true")
    assert (done.returncode, done.stderr) == (0, "")
    assert set(Path("/var/tmp").glob("solstice-*")) == before


@pytest.mark.parametrize(
    ("state", "of_step", "code"),
    [
        ("succeeded", 0, 0),
        ("failed", 7, 7),
        ("failed", None, 1),
        ("errored", None, 75),
        ("timed_out", None, 124),
        ("cancelled", None, 130),
        ("rejected", None, 65),
    ],
)
def test_exit_codes(state: str, of_step: int | None, code: int) -> None:
    assert exits.exit_code(state, of_step) == code


def test_what_drives_a_terminal_is_made_visible_and_colours_stay() -> None:
    assert harmless(b"\x1b[31mred\x1b[0m\ttab\n") == b"\x1b[31mred\x1b[0m\ttab\n"
    assert harmless(b"\x1b]0;title\x07") == b"\\x1b]0;title\\x07"
    assert harmless(b"\x1b[2J") == b"\\x1b[2J"
    assert harmless("é\x9b".encode()) == "é".encode() + b"\\xc2\\x9b"


def test_a_table_shows_no_control_characters() -> None:
    assert table(("A", "B"), [("x\x1b[2J", "y")]) == "A      B\nx·[2J  y"


def test_the_newest_attempts_log_is_the_one_with_the_largest_number(tmp_path: Path) -> None:
    for attempt in ("2", "10"):
        (tmp_path / attempt).mkdir()
        (tmp_path / attempt / "log").touch()
    assert newest_log(tmp_path) == tmp_path / "10" / "log"


def test_following_shows_each_byte_once(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    log, shown = tmp_path / "1" / "log", tmp_path / "shown"
    pieces = [b"one\n", b"two\n", b"", b"three"]

    def is_over() -> bool:
        with log.open("ab") as end:
            end.write(pieces.pop(0))
        return not pieces

    with shown.open("wb") as out:
        follow(tmp_path, is_over, out=out)
        Printer(out).show(None)
    assert shown.read_bytes() == b"one\ntwo\nthree"
