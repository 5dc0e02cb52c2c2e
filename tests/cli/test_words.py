"""How times, durations and sizes are written, and which words have a colour."""

from __future__ import annotations

import click
import pytest

from solstice.cli.table import table
from solstice.cli.words import duration, moment, painted, plain, size


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-0.2, "0.0 s"),
        (0.26, "0.3 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (192.4, "3 min 12 s"),
        (3600, "1 h"),
        (3630, "1 h"),
        (7500, "2 h 5 min"),
        (86_400 + 30, "1 d"),
        (3 * 86_400 + 4 * 3600 + 60, "3 d 4 h"),
    ],
)
def test_a_duration_has_at_most_two_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_moment_is_in_utc() -> None:
    assert moment(0.9) == "1970-01-01T00:00:00Z"


@pytest.mark.parametrize(("mib", "text"), [(0, "0 MiB"), (1023, "1023 MiB"), (1024, "1.0 GiB"), (34_816, "34.0 GiB")])
def test_a_size_is_in_the_unit_that_suits_it(mib: int, text: str) -> None:
    assert size(mib) == text


def test_control_characters_become_visible() -> None:
    assert plain("a\x1b[2J\nb") == "a·[2J·b"


def test_a_column_is_as_wide_as_its_text_however_it_is_painted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    text = table(("STATE", "B"), [("failed", "x"), ("new", "y")])
    assert "\x1b[31mfailed\x1b[0m" in text
    assert click.unstyle(text) == "STATE   B\nfailed  x\nnew     y"


def test_a_line_of_a_table_ends_with_its_last_text() -> None:
    assert table(("A", "B", "C"), [("1", "", ""), ("", "", "")]) == "A  B  C\n1\n"


def test_no_color_means_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert painted("failed") == "failed"
