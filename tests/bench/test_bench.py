"""The measurements run from a checkout and print what they promise; what they measure has a bound where one is set."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

MAX_GROWTH_MB = 5.0


def measure(name: str, *words: str) -> str:
    """What a measurement prints; it must end with status 0."""
    argv = [sys.executable, str(Path(__file__).with_name(name)), *words]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.broker
def test_dispatch_shows_what_each_part_costs_and_ends_with_the_ratio() -> None:
    *table, last = measure("dispatch", "--jobs", "100").splitlines()
    assert re.fullmatch(r"ratio: \d\.\d\d", last)
    for part in ("supervisor", "store", "fork server", "workers", "broker"):
        (line,) = [line for line in table if line.strip().startswith(part)]
        assert re.search(r" \d+\.\d\d ms of CPU per job$", line)


@pytest.mark.broker
def test_the_supervisor_keeps_nothing_of_jobs_that_ended() -> None:
    last = measure("memory").splitlines()[-1]
    grown = re.fullmatch(r"growth: (-?\d+\.\d) MB", last)
    assert grown is not None, last
    assert float(grown[1]) <= MAX_GROWTH_MB


@pytest.mark.nginx
def test_images_shows_that_ours_is_sparse_and_ends_with_the_ratio() -> None:
    *table, last = measure("images", "--size", "64", "--rounds", "1").splitlines()
    assert re.fullmatch(r"ratio: \d+\.\d\d", last)
    ours, theirs = (int(re.fullmatch(r".* (\d+) MiB on disk", line)[1]) for line in table[-2:])  # type: ignore[index]
    assert ours < theirs
