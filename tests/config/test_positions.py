"""YAML with lines: what is taken, what is refused, and that hostile files cost little."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from solstice.config.positions import MAX_BYTES, parse, read
from solstice.errors import ConfigError, UsageError

FILE = Path("job.yaml")


def test_values_and_lines() -> None:
    document = parse("a: 1\nb:\n  - x: yes\n    y: 'no'\n  - 2026-11-24\nc: {d: 1.5, e: ~}\n", FILE)
    assert document.value == {"a": 1, "b": [{"x": True, "y": "no"}, "2026-11-24"], "c": {"d": 1.5, "e": None}}
    assert document.where(("b", 0, "y")) == "job.yaml:4"
    assert document.where(("b", 1)) == "job.yaml:5"
    assert document.where(("c", "e")) == "job.yaml:6"
    assert document.where(("b", "missing")) == "job.yaml:2"


def test_aliases_are_written_out() -> None:
    document = parse("a: &env {X: '1'}\nb: *env\n", FILE)
    assert document.value == {"a": {"X": "1"}, "b": {"X": "1"}}


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: 1\na: 2\n", 2, "a: is there twice, first on line 1"),
        ("s:\n  k: 1\n  k: 2\n", 3, "s.k: is there twice"),
        ("a: 1\n---\nb: 2\n", 2, "one document a file"),
        ("a: [1\nb: 2\n", 2, "not YAML"),
        ("a: 1\n b: 2\n", 2, "not YAML"),
        ("a:\n\t- 1\n", 2, "not YAML"),
        ("a: 1\nb: *nowhere\n", 2, "undefined alias"),
        ("a: &x 1\n? [1]\n: 2\n", 2, "a key that is not text"),
        ("on: 1\n", 1, "a key that is not text"),
        ("22.04: 1\n", 1, "a key that is not text"),
        ("a: &x {y: 1}\nb:\n  <<: *x\n", 3, "merge keys"),
        ("a: !!python/object/apply:os.system ['true']\n", 1, "the tag"),
        ("a: !!binary aGk=\n", 1, "the tag"),
        ("a: !!set {b}\n", 1, "the tag"),
        ("a: !!int many\n", 1, "cannot be read as int"),
        ("a: !!bool many\n", 1, "cannot be read as bool"),
        ("a: " + "9" * 5000, 1, "cannot be read as int"),
        ("a: 1" + ":1" * 100_000, 1, "cannot be read as int"),
        ("a: [" + "1," * 300_000 + "]", 1, "more than 20000 values"),
        ("a: 1\nb: \x00\n", 2, "U+0000"),
        ("", 1, "empty"),
        ("# nothing\n", 1, "empty"),
        ("a: &x [*x]\n", 1, "nested too deeply"),
        ("a: " + "[" * 40 + "]" * 40, 1, "nested too deeply"),
        ("[" * 1_000_000, 1, "nested too deeply"),
    ],
)
def test_refused_with_file_and_line(text: str, line: int, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text, FILE)
    assert caught.value.where == f"job.yaml:{line}"
    assert words in str(caught.value)
    assert caught.value.remedy


def test_alias_bomb_is_refused_at_once() -> None:
    levels = ["l0: &l0 [x, x, x, x, x, x, x, x, x]"]
    levels += [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 12)]
    start = time.monotonic()
    with pytest.raises(ConfigError, match="aliases written out"):
        parse("\n".join(levels), FILE)
    assert time.monotonic() - start < 5


def test_file_is_read_whole_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "map.yaml"
    with pytest.raises(UsageError, match="cannot read"):
        read(path)
    with pytest.raises(UsageError, match="cannot read"):
        read(tmp_path)
    path.write_bytes(b"a: 1\nb: \xff\n")
    with pytest.raises(ConfigError, match=r"map\.yaml:2: not UTF-8"):
        read(path)
    path.write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(ConfigError, match="longer than"):
        read(path)
    path.write_text("ä: ö\n", "utf-8")
    assert read(path).value == {"ä": "ö"}


@given(st.text(alphabet=st.sampled_from("ab:-[]{}&*!<>|?,'\"# \n\t0.~%@`\x00é")))
def test_any_text_gives_a_document_or_a_config_error(text: str) -> None:
    try:
        parse(text, FILE)
    except ConfigError as error:
        assert error.where.startswith("job.yaml:")  # noqa: PT017 - either outcome is right
