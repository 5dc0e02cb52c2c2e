"""What was appended is read back; the rest of a journal's behaviour is shown by links and workers (tests/worker)."""

from __future__ import annotations

from pathlib import Path

import pytest

from solstice.host import journal
from solstice.host.journal import Journal
from solstice.protocol import lines
from solstice.protocol.journal import BadJournal


def filled(path: Path, count: int) -> None:
    writer = Journal(path)
    for number in range(count):
        writer.append(lines.encode({"n": number}))
    writer.close()


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


def test_a_line_that_cannot_be_read_is_an_error_with_file_and_line(tmp_path: Path) -> None:
    filled(tmp_path / "j", 2)
    with (tmp_path / "j").open("ab") as file:
        file.write(b"\0\0\0\n")
    with pytest.raises(BadJournal, match=f"{tmp_path}/j:3: "):
        journal.read(tmp_path / "j")
