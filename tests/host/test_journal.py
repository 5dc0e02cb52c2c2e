"""What was appended is read back; the rest of a journal's behaviour is shown by links and workers (tests/worker)."""

from __future__ import annotations

from pathlib import Path

import pytest

from solstice.host import journal
from solstice.host.journal import Journal
from solstice.lifecycle import Phase
from solstice.protocol import lines, reports


def filled(path: Path, count: int) -> None:
    writer = Journal(path)
    for number in range(count):
        writer.append(lines.encode(reports.encode(reports.PhaseEntered(Phase.RUNNING), number, 1.5)))
    writer.close()


def damage(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\0\0\0\n")


def test_what_was_appended_is_read_back_after_any_number(tmp_path: Path) -> None:
    filled(tmp_path / "j", 4)
    assert [message["n"] for message in journal.read(tmp_path / "j")] == [0, 1, 2, 3]
    assert [message["n"] for message in journal.read(tmp_path / "j", after=1)] == [2, 3]
    assert journal.read(tmp_path / "j", after=3) == []


def test_where_there_is_no_journal_nothing_was_said(tmp_path: Path) -> None:
    assert journal.read(tmp_path / "j") == []


def test_a_journal_has_one_writer(tmp_path: Path) -> None:
    filled(tmp_path / "j", 1)
    with pytest.raises(FileExistsError):
        Journal(tmp_path / "j")


def test_what_stands_before_a_damaged_line_is_read_and_the_log_names_that(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    filled(tmp_path / "j", 2)
    damage(tmp_path / "j")
    assert [message["n"] for message in journal.read(tmp_path / "j", after=0)] == [1]
    assert f"{tmp_path}/j:3: " in caplog.text


def test_a_journal_that_was_read_is_removed_and_a_damaged_one_kept_for_a_person(tmp_path: Path) -> None:
    for name in ("whole", "damaged"):
        filled(tmp_path / name, 2)
    damage(tmp_path / "damaged")
    before = (tmp_path / "damaged").read_bytes()
    for _ in range(2):
        for name in ("whole", "damaged", "missing"):
            journal.put_away(tmp_path / name)
        assert [path.name for path in tmp_path.iterdir()] == ["damaged.bad"]
    assert (tmp_path / "damaged.bad").read_bytes() == before
