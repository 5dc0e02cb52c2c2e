"""`solstice db` as a user runs it: what it says, its exit codes, what it leaves alone.  Real SQLite files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from solstice.store.migrate import HEAD
from tests.sources import ROOT
from tests.store.files import old_database, outsider
from tests.store.process import running_store

Done = subprocess.CompletedProcess[str]


def solstice_db(file: Path, *words: str) -> Done:
    argv = [sys.executable, "-m", "solstice", "db", *words]
    environment = {**os.environ, "DATABASE_URL": f"sqlite:///{file}"}
    return subprocess.run(
        argv, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "test.db"


def test_upgrade_makes_what_is_not_there_and_says_when_there_is_nothing_to_do(file: Path) -> None:
    done = solstice_db(file, "upgrade")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"sqlite:///{file}: made, revision {HEAD}\n", "")
    assert solstice_db(file, "upgrade").stdout == f"sqlite:///{file}: was up to date, revision {HEAD}\n"
    done = solstice_db(file, "check")
    assert (done.returncode, done.stdout) == (0, f"sqlite:///{file}: up to date, revision {HEAD}\n")
    assert solstice_db(file, "current").stdout == f"sqlite:///{file}: {HEAD}, the newest\n"


def test_looking_at_a_database_that_is_not_there_makes_none(file: Path) -> None:
    assert solstice_db(file, "current").stdout == f"sqlite:///{file}: no tables, the newest is {HEAD}\n"
    done = solstice_db(file, "check")
    assert (done.returncode, done.stdout) == (1, "")
    assert "is not up to date: it has no tables" in done.stderr
    assert list(file.parent.iterdir()) == []


def test_tables_of_an_older_solstice_are_pending_until_they_are_upgraded(file: Path) -> None:
    old_database(file)
    assert solstice_db(file, "current").stdout == f"sqlite:///{file}: 0001, the newest is {HEAD}\n"
    done = solstice_db(file, "check")
    assert done.returncode == 1
    assert f"it has the tables of revision 0001, the newest is {HEAD}" in done.stderr
    assert solstice_db(file, "upgrade").stdout == f"sqlite:///{file}: upgraded from revision 0001 to {HEAD}\n"
    assert solstice_db(file, "check").returncode == 0


def test_check_finds_what_somebody_changed_by_hand(file: Path) -> None:
    solstice_db(file, "upgrade")
    with outsider(file) as connection:
        connection.execute("ALTER TABLE jobs ADD COLUMN mood VARCHAR")
    done = solstice_db(file, "check")
    assert done.returncode == 1
    assert "mood" in done.stderr


def test_check_refuses_the_tables_of_a_newer_solstice(file: Path) -> None:
    solstice_db(file, "upgrade")
    with outsider(file) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    for command in ("check", "upgrade"):
        done = solstice_db(file, command)
        assert done.returncode == 2
        assert "install the newer Solstice again" in done.stderr


def test_a_database_in_use_is_looked_at_and_not_upgraded(file: Path) -> None:
    with running_store(file) as store:
        assert solstice_db(file, "check").returncode == 0
        done = solstice_db(file, "upgrade")
        assert done.returncode == 2
        assert f"pid {store.process.pid} holds it" in done.stderr


def test_state_directory_says_where_the_database_is(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "solstice", "db", "upgrade", "--state-dir", str(tmp_path)]
    done = subprocess.run(argv, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "solstice.db").is_file()
