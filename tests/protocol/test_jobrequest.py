"""jobrequest.v1: whatever the bytes are, a request or a sentence that names the place."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from solstice.config.parsers import LABEL
from solstice.errors import Cause
from solstice.model import JobRequest, Step
from solstice.protocol.jobrequest import (
    MAX_REQUEST_BYTES,
    MAX_WHY_BYTES,
    SCHEMA,
    InvalidRequest,
    encode,
    new_request,
    parse,
    to_document,
    validate,
)

ID = "7f3a91c2-0d5b-4c1e-9a44-2f1f0c6f9b1e"
MINIMAL = {"schema_version": "jobrequest.v1", "request_id": ID, "steps": [{"run": "make"}]}
FULL = MINIMAL | {
    "runs_on": "ubuntu-22.04",
    "size": "large",
    "repo_url": "https://forge.example/a/b.git",
    "commit_sha": "0123456789abcdef0123456789abcdef01234567",
    "ref": "refs/heads/main",
    "steps": [
        {"name": "build", "run": "make\n", "env": {"CFLAGS": "-O2"}, "timeout_s": 60},
        {"run": "echo 'ä\u2028'"},
    ],
    "env": {"_x1": "", "CI": "true"},
    "timeout_s": 0.5,
    "priority": 0,
    "concurrency_group": "deploy ä",
    "cancel_in_progress": True,
    "artifacts": ["dist/*.tar.gz"],
    "source": "webhook forge.example",
    "submitted_at": "2026-11-24T08:00:00.123+01:00",
}
MAN_PAGE = Path(__file__).resolve().parents[2] / "packaging/man/solstice-job.5"


def _body(**changes: Any) -> bytes:
    return json.dumps(MINIMAL | changes).encode()


def _why(body: bytes) -> str:
    with pytest.raises(InvalidRequest) as caught:
        parse(body)
    error = caught.value
    assert error.cause is Cause.INVALID
    assert error.why.isprintable()
    assert len(error.why.encode()) <= MAX_WHY_BYTES
    return error.why


def test_minimal_document_gets_the_defaults() -> None:
    assert parse(_body()) == JobRequest(ID, "", (Step("step 1", "make"),))


def test_every_field_arrives() -> None:
    request = parse(json.dumps(FULL).encode())
    assert request.steps == (Step("build", "make\n", {"CFLAGS": "-O2"}, 60.0), Step("step 2", "echo 'ä\u2028'"))
    rest = {key: getattr(request, key) for key in FULL if key not in ("schema_version", "steps")}
    assert rest == {key: FULL[key] for key in rest} | {"artifacts": ("dist/*.tar.gz",)}


def test_request_id_is_made_canonical() -> None:
    assert parse(_body(request_id=ID.upper())).request_id == ID


def test_document_gives_the_same_request_back() -> None:
    request = parse(json.dumps(FULL).encode())
    assert validate(to_document(request)) == parse(encode(request)) == request


def test_empty_fields_are_not_in_the_document() -> None:
    assert to_document(parse(_body())) == MINIMAL | {"steps": [{"name": "step 1", "run": "make"}]}


@pytest.mark.parametrize("priority", range(10))
def test_every_priority_survives_and_the_default_is_left_out(priority: int) -> None:
    request = parse(_body(priority=priority))
    assert request.priority == priority
    assert to_document(request).get("priority", 5) == priority
    assert ("priority" in to_document(request)) == (priority != 5)


def test_priority_is_a_whole_number_however_it_is_written() -> None:
    assert repr(parse(_body(priority=7.0)).priority) == "7"


def test_new_request_is_complete_and_valid() -> None:
    request = new_request(steps=[{"run": "make"}], runs_on="debian-12", repo_url="", commit_sha=None, artifacts=())
    assert uuid.UUID(request.request_id).version == 4
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", request.submitted_at)
    assert parse(encode(request)) == request
    with pytest.raises(InvalidRequest, match=r"commit_sha: is missing, and repo_url needs it"):
        new_request(steps=[{"run": "make"}], repo_url="https://forge.example/a")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON: Expecting property name enclosed in double quotes at line 1 column 2"),
        (b"\xff\xfe{}", "not UTF-8: byte 0 is 0xff"),
        (json.dumps(MINIMAL).encode("utf-16"), "not UTF-8"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        (b" " * (MAX_REQUEST_BYTES + 1), "has 1048577 bytes, the most is 1048576"),
        (b"[" * 500_000, "nested too deeply"),
        (b'{"a":' * 150_000, "nested too deeply"),
        (b'{"timeout_s": NaN}', "NaN is no number"),
        (b'{"timeout_s": -Infinity}', "-Infinity is no number"),
        (b'{"timeout_s": 1' + b"0" * 5000 + b"}", "too many digits"),
        (b'{"env": {"A": "1", "B": "2", "A": "3"}}', "the key 'A' twice"),
        (b'{"' + b"k" * 5000 + b'": 1, "' + b"k" * 5000 + b'": 1}', "twice"),
        (b"null", "is null, must be an object"),
        (b"[]", "is a list, must be an object"),
        (b'"jobrequest.v1"', "must be an object"),
    ],
)
def test_what_is_no_document_is_refused(body: bytes, words: str) -> None:
    assert words in _why(body)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"schema_version": "jobrequest.v2"}, "schema_version: is another value, must be the text jobrequest.v1"),
        ({"schema_version": 1, "future": 2}, "schema_version: is another value"),
        ({"request_id": "7f3a91c2"}, "request_id: must be a UUID"),
        ({"request_id": ID + "\n"}, "request_id: must be a UUID"),
        ({"request_id": None}, "request_id: is null, must be a UUID"),
        ({"runs_on": "-x"}, "runs_on: must be a label"),
        ({"runs_on": "a" * 64}, "runs_on: must be a label"),
        ({"runs_on": ["debian-12"]}, "runs_on: is a list, must be a label"),
        ({"size": "a b"}, "size: must be the name of a size"),
        ({"step": []}, "step: unknown key, did you mean steps?"),
        ({"nothing_like_it": 1}, "nothing_like_it: unknown key, known are artifacts, "),
        ({"x\n\u202e": 1}, "x\\n\\u202e: unknown key"),
        ({"k" * 100_000: 1}, "k" * 60 + "...: unknown key"),
        ({"steps": []}, "steps: must be a list of 1 to 64 steps"),
        ({"steps": [{"run": "a"}] * 65}, "steps: must be a list of 1 to 64 steps"),
        ({"steps": {"run": "a"}}, "steps: is an object, must be a list"),
        ({"steps": [{"run": "a"}, "make"]}, "steps[1]: is text, must be an object"),
        ({"steps": [{"run": "a"}, {}]}, "steps[1].run: is missing"),
        ({"steps": [{"run": "a"}, {"run": "b"}, {"run": ""}]}, "steps[2].run: must be a shell script of 1 to"),
        ({"steps": [{"run": "a\0"}]}, "steps[0].run: must be a shell script"),
        ({"steps": [{"run": "a" * 262_145}]}, "steps[0].run: must be a shell script"),
        ({"steps": [{"run": "a", "name": ""}]}, "steps[0].name: must be a name"),
        ({"steps": [{"run": "a", "name": "a\nb"}]}, "steps[0].name: must be a name"),
        ({"steps": [{"run": "a", "env": {"A": 1}}]}, "steps[0].env.A: is a number, must be text"),
        ({"env": {"A-B": "secret"}}, "env: the key 'A-B' must be the name of an environment variable"),
        ({"env": {"A\n": "secret"}}, "env: the key 'A\\n' must be"),
        ({"env": {"A" * 129: ""}}, "env: the key"),
        ({"env": {"A": "secret\0"}}, "env.A: must be text of at most 16384 characters"),
        ({"env": {f"A{n}": "" for n in range(257)}}, "env: must be an object of at most 256"),
        ({"timeout_s": 0}, "timeout_s: must be a number of seconds"),
        ({"timeout_s": 604_801}, "timeout_s: must be a number of seconds"),
        ({"timeout_s": 10**4000}, "timeout_s: must be a number of seconds"),
        ({"timeout_s": True}, "timeout_s: is true or false, must be a number of seconds"),
        ({"timeout_s": "60"}, "timeout_s: is text, must be a number of seconds"),
        ({"priority": 10}, "priority: must be a whole number from 0 to 9"),
        ({"priority": -1}, "priority: must be a whole number from 0 to 9"),
        ({"priority": 4.5}, "priority: is a number, must be a whole number"),
        ({"priority": True}, "priority: is true or false, must be a whole number"),
        ({"priority": "9"}, "priority: is text, must be a whole number"),
        ({"concurrency_group": ""}, "concurrency_group: must be a name of 1 to 128 characters"),
        ({"concurrency_group": "g" * 129}, "concurrency_group: must be a name"),
        ({"concurrency_group": "a\nb"}, "concurrency_group: must be a name"),
        ({"concurrency_group": "g", "cancel_in_progress": 1}, "cancel_in_progress: is a number, must be true or false"),
        ({"cancel_in_progress": True}, "concurrency_group: is missing, and cancel_in_progress needs it"),
        ({"repo_url": "https://u:secret@forge/a"}, "commit_sha: is missing, and repo_url needs it"),
        ({"commit_sha": "a" * 40}, "repo_url: is missing, and commit_sha needs it"),
        ({"repo_url": "ext::sh -c x", "commit_sha": "a" * 40}, "repo_url: must be a git URL"),
        ({"repo_url": "https://secret\n@forge/a", "commit_sha": "a" * 40}, "repo_url: must be a git URL"),
        ({"repo_url": "https://forge/a\u00a0b", "commit_sha": "a" * 40}, "repo_url: must be a git URL"),
        ({"repo_url": "https://forge/a", "commit_sha": "A" * 40}, "commit_sha: must be a full commit id"),
        ({"repo_url": "https://forge/a", "commit_sha": "a" * 41}, "commit_sha: must be a full commit id"),
        ({"ref": "--upload-pack=x"}, "ref: must be a git ref"),
        ({"artifacts": [""]}, "artifacts[0]: must be a path"),
        ({"artifacts": ["a"] * 65}, "artifacts: must be a list of at most 64 paths"),
        ({"source": "a\x1bb"}, "source: must be text"),
        ({"source": "\ud800"}, "source: is text with half a surrogate pair in it, must be text"),
        ({"submitted_at": "yesterday"}, "submitted_at: must be a time after RFC 3339"),
        ({"submitted_at": "2026-02-30T08:00:00Z"}, "submitted_at: is a time that no calendar or clock has"),
        ({"submitted_at": "0000-01-01T00:00:00Z"}, "submitted_at: is a time that no calendar or clock has"),
    ],
)
def test_what_does_not_fit_is_named_by_its_place(changes: dict[str, Any], why: str) -> None:
    said = _why(_body(**changes))
    assert said.startswith(why)
    assert "secret" not in said


@pytest.mark.parametrize("missing", ["schema_version", "request_id", "steps"])
def test_missing_key_is_named(missing: str) -> None:
    document = {key: value for key, value in MINIMAL.items() if key != missing}
    assert _why(json.dumps(document).encode()).startswith(f"{missing}: is missing")


def test_number_beyond_a_float_is_refused() -> None:
    assert _why(_body(timeout_s=7).replace(b": 7", b": 1e999")).startswith("timeout_s: is not a finite number")


def test_nesting_below_the_parsers_limit_is_refused_too() -> None:
    for depth in (100, 500, 900, 990):
        nested = b"[" * depth + b"]" * depth
        assert _why(_body(source="HERE").replace(b'"HERE"', nested)).startswith(
            ("source: is a list", "the document is")
        )


def test_largest_request_that_is_encoded_is_parsed() -> None:
    steps = [{"run": "é" * 130_000} for _ in range(4)]
    assert parse(encode(new_request(steps=steps))).steps[3].run == steps[3]["run"]
    with pytest.raises(InvalidRequest, match="the most is"):
        encode(new_request(steps=steps * 2))


@given(st.binary())
def test_any_bytes_give_a_request_or_an_invalid_request(body: bytes) -> None:
    _parses(body)


NAMES = st.text(st.characters(blacklist_categories=("Cc", "Cs")), min_size=1, max_size=128)


@given(st.integers(0, 9), NAMES, st.booleans())
def test_what_steers_a_job_comes_back_from_its_document(priority: int, group: str, cancel: bool) -> None:
    steps = [{"run": "make"}]
    request = new_request(steps=steps, priority=priority, concurrency_group=group, cancel_in_progress=cancel)
    assert (request.priority, request.concurrency_group, request.cancel_in_progress) == (priority, group, cancel)
    assert validate(to_document(request)) == parse(encode(request)) == request


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(st.sampled_from(sorted(FULL)) | st.text(), JSON, max_size=4), st.sets(st.sampled_from(sorted(FULL)))
)
def test_any_change_of_a_document_gives_a_request_or_an_invalid_request(changes: Any, removed: set[str]) -> None:
    document = {key: value for key, value in FULL.items() if key not in removed} | changes
    _parses(json.dumps(document).encode())


@given(st.binary(max_size=4), st.integers(0, 700), st.integers(0, 8))
def test_any_damage_gives_a_request_or_an_invalid_request(junk: bytes, at: int, cut: int) -> None:
    body = json.dumps(FULL).encode()
    _parses(body[:at] + junk + body[at + cut :])


def _parses(body: bytes) -> None:
    try:
        request = parse(body)
    except InvalidRequest as error:
        assert error.why  # noqa: PT017 - either outcome is right
        assert len(error.why.encode()) <= MAX_WHY_BYTES  # noqa: PT017
    else:
        assert parse(encode(request)) == request


def _schemas(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        if schema.keys() & {"type", "const"}:
            yield schema
        for value in schema.values():
            yield from _schemas(value)


def test_schema_is_valid_and_says_what_every_part_must_be() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA.document)
    parts = list(_schemas(SCHEMA.document))
    assert len(parts) >= 18
    assert [part for part in parts if "description" not in part] == []


def test_schema_and_image_map_agree_on_what_a_label_is() -> None:
    properties = SCHEMA.document["properties"]
    for key in ("runs_on", "size"):
        assert properties[key]["pattern"] == f"^({LABEL.pattern})?$"


def test_documents_of_ours_are_valid_to_anybody() -> None:
    """The schema as published, without our stricter reading of it."""
    validator = jsonschema.Draft202012Validator(SCHEMA.document)
    validator.validate(FULL)
    validator.validate(to_document(new_request(steps=[{"run": "make"}])))


def test_manual_page_has_every_field_and_every_cause() -> None:
    text = MAN_PAGE.read_text("utf-8")
    schema = SCHEMA.document
    for field in {**schema["properties"], **schema["$defs"]["step"]["properties"]}:
        assert re.search(rf"^\.It Ic {field}\b", text, re.MULTILINE), field
    for cause in Cause:
        assert f".It Li {cause.value}\n" in text, cause
