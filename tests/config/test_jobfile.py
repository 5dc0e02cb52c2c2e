"""Job files: what a person may leave out, and that a mistake is shown at its line."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from solstice.config.jobfile import from_yaml
from solstice.errors import ConfigError, UsageError
from solstice.model import Step


def _file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "job.yaml"
    path.write_text(text, "utf-8")
    return path


def test_identity_and_time_are_filled_in(tmp_path: Path) -> None:
    request = from_yaml(_file(tmp_path, "steps:\n  - run: make\n"))
    assert uuid.UUID(request.request_id).version == 4
    assert request.submitted_at.endswith("Z")
    assert request.steps == (Step("step 1", "make"),)


def test_identity_and_time_of_the_file_are_kept(tmp_path: Path) -> None:
    text = (
        "request_id: 7F3A91C2-0d5b-4c1e-9a44-2f1f0c6f9b1e\nsubmitted_at: 2026-11-24T08:00:00Z\nsteps: [{run: make}]\n"
    )
    request = from_yaml(_file(tmp_path, text))
    assert request.request_id == "7f3a91c2-0d5b-4c1e-9a44-2f1f0c6f9b1e"
    assert request.submitted_at == "2026-11-24T08:00:00Z"


@pytest.mark.parametrize(
    ("text", "line", "key", "words"),
    [
        ("steps:\n  - name: a\n    run: make\n    timeout: 3\n", 4, "steps[0].timeout", "did you mean timeout_s"),
        ("steps:\n  - run: make\nenv:\n  DEBUG: 1\n", 4, "env.DEBUG", "put the value in quotes"),
        ("runs_on: x\nsteps:\n  - name: a\n", 3, "steps[0].run", "is missing"),
        ("runs_on: x\nstep: []\n", 1, "steps", "is missing"),
        ("steps: [{run: a}]\ntimeout_s: .nan\n", 2, "timeout_s", "not a finite number"),
        ("steps: [{run: a}]\nenv: {'A B': x}\n", 2, "env", "'A B' must be the name of an environment variable"),
        ("schema_version: jobrequest.v2\nsteps: [{run: a}]\n", 1, "schema_version", "jobrequest.v1"),
        ("- run: make\n", 1, "", "not a mapping"),
        ("runs_on: a\nruns_on: b\n", 2, "runs_on", "twice"),
        ("steps: [\n", 2, "", "not YAML"),
    ],
)
def test_mistake_is_refused_with_file_and_line(tmp_path: Path, text: str, line: int, key: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_yaml(_file(tmp_path, text))
    assert caught.value.where == f"{tmp_path}/job.yaml:{line}"
    assert caught.value.key == key
    assert words in str(caught.value)
    assert caught.value.remedy


def test_job_that_would_be_too_large_to_publish_is_refused(tmp_path: Path) -> None:
    anchor = "\n".join(["x" * 100] * 2500).replace("\n", "\n      ")
    steps = "  - run: &big |\n      " + anchor + "\n" + "  - run: *big\n" * 5
    with pytest.raises(ConfigError, match="the most is 1048576"):
        from_yaml(_file(tmp_path, "steps:\n" + steps))


def test_missing_file_is_the_callers_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        from_yaml(tmp_path / "none.yaml")
