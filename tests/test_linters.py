"""The linters are tests.  One that is not installed is skipped on a laptop and is a failure where CI is set."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sources import ROOT

_SHELLS = ("sh", "bash", "dash", "ksh")
# what codespell takes for mistakes: an mdoc macro, the two Debians, and mistakes that tests make on purpose
_WORDS = "nd,debians,debain,decompres,smal"


def absent(tool: str) -> None:
    reason = f"{tool} is not installed; tests/run installs it"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def python_tool(module: str, *arguments: str) -> None:
    if importlib.util.find_spec(module) is None:
        absent(module)
    check(sys.executable, "-m", module, *arguments)


def program(name: str, *arguments: str) -> None:
    if shutil.which(name) is None:
        absent(name)
    check(name, *arguments)


def check(*argv: str) -> None:
    done = subprocess.run(argv, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0 or done.stderr:
        pytest.fail(f"{argv[:4]}: exit status {done.returncode}\n{done.stdout}{done.stderr}", pytrace=False)


def tracked() -> list[Path]:
    """Every file of the checkout that git knows and that is there."""
    # the checkout may be another user's, which git refuses without this
    argv = ["git", "-c", "safe.directory=*", "ls-files", "-z"]
    names = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in names.split("\0") if name and (ROOT / name).is_file()]


def is_shell_script(path: Path) -> bool:
    with path.open("rb") as file:
        first = file.readline(200).decode(errors="replace")
    named = first.startswith("#!") and any(Path(word).name in _SHELLS for word in first[2:].split())
    return named or path.suffix == ".sh"


def test_ruff_finds_nothing() -> None:
    python_tool("ruff", "check", "--quiet", "solstice", "tests")


def test_every_module_is_formatted() -> None:
    python_tool("ruff", "format", "--check", "--quiet", "solstice", "tests")


def test_mypy_finds_nothing() -> None:
    python_tool("mypy")


def test_shellcheck_finds_nothing() -> None:
    scripts = [str(path.relative_to(ROOT)) for path in tracked() if is_shell_script(path)]
    assert {"tests/run", ".ci/run", "solstice/runner/guest.sh"} <= set(scripts)
    program("shellcheck", *scripts)


def test_codespell_finds_nothing() -> None:
    texts = [str(path.relative_to(ROOT)) for path in tracked() if path.name != "LICENSE"]
    python_tool("codespell_lib", f"--ignore-words-list={_WORDS}", *texts)


def test_the_manual_pages_are_clean() -> None:
    pages = [str(path.relative_to(ROOT)) for path in tracked() if path.parent == ROOT / "packaging/man"]
    assert pages
    program("mandoc", "-T", "lint", "-W", "warning", *pages)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a", "#!/bin/sh\n", True),
        ("a", "#! /usr/bin/env bash\n", True),
        ("a", "#!/bin/dash -eu\n", True),
        ("a.sh", "", True),
        ("a", "#!/usr/bin/python3\n", False),
        ("a", "# sh\n", False),
        ("a", "", False),
    ],
)
def test_a_shell_script_is_known_by_its_first_line_or_its_name(
    tmp_path: Path, name: str, text: str, expected: bool
) -> None:
    (tmp_path / name).write_text(text)
    assert is_shell_script(tmp_path / name) is expected


def test_a_finding_fails_the_test(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("import os\n")
    with pytest.raises(pytest.fail.Exception, match="F401"):
        python_tool("ruff", "check", "--isolated", str(tmp_path))


def test_an_absent_tool_is_a_failure_in_ci_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no-such-linter is not installed"):
        program("no-such-linter")
    monkeypatch.delenv("CI")
    with pytest.raises(pytest.skip.Exception):
        program("no-such-linter")
