"""The public document `jobrequest.v1`: bytes to a `JobRequest` and back.  No I/O but the schema's file, read at import.

    parse(bytes)      what the broker delivered             supervisor/intake
    new_request(…)    fields, completed and validated       cli
    validate(dict)    a document that was not JSON          config/jobfile
    encode(request)   what is published                     cli

The bytes are hostile: whatever they are, the answer is a `JobRequest` or an `InvalidRequest`, whose `why` names the
place in at most `MAX_WHY_BYTES`.  Values of the request are never in it: they may be secrets.  The definition is the
schema, jobrequest.v1.json; its descriptions are what people read when a value does not fit.
"""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from solstice.errors import RequestError
from solstice.model import DEFAULT_PRIORITY, JobRequest, Step
from solstice.protocol.places import Place, clip, dotted
from solstice.protocol.schema import Schema

SCHEMA_VERSION = "jobrequest.v1"
MAX_REQUEST_BYTES = 1 << 20
MAX_WHY_BYTES = 1024

SCHEMA = Schema(json.loads(Path(__file__).with_name("jobrequest.v1.json").read_text("utf-8")))


class InvalidRequest(RequestError):
    """A document that is not a valid jobrequest.v1.

    `place` holds the keys and list indexes that lead to what is wrong, `reason` says what, and what would be right.
    """

    def __init__(self, place: Place, reason: str) -> None:
        text = f"{dotted(place)}: {reason}" if place else reason
        super().__init__(text.encode(errors="replace")[:MAX_WHY_BYTES].decode(errors="ignore"))
        self.place = place
        self.reason = reason


def parse(body: bytes) -> JobRequest:
    """The request in one message.  Raises `InvalidRequest`, and nothing else."""
    if len(body) > MAX_REQUEST_BYTES:
        raise InvalidRequest((), f"the document has {len(body)} bytes, the most is {MAX_REQUEST_BYTES}")
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidRequest((), f"the document is not UTF-8: byte {error.start} is {body[error.start]:#04x}") from None
    try:
        return validate(json.loads(text, object_pairs_hook=_without_duplicates, parse_constant=_refuse_constant))
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        raise InvalidRequest((), f"the document is not JSON: {error.msg} at {where}") from None
    except RecursionError:
        raise InvalidRequest((), "the document is nested too deeply") from None
    except ValueError:
        # json makes Python integers, and those stop at some thousand digits
        raise InvalidRequest((), "the document has a number with too many digits") from None


def validate(document: object) -> JobRequest:
    """The request in a document that is already made of dict, list, str, int, float, bool and None.

    Raises `InvalidRequest`.
    """
    if isinstance(document, dict) and document.get("schema_version") != SCHEMA_VERSION:
        # first of all: another version differs in more, and the rest would be misleading
        found = "another value" if "schema_version" in document else "missing"
        raise InvalidRequest(("schema_version",), f"is {found}, must be the text {SCHEMA_VERSION}")
    finding = SCHEMA.check(document)
    if finding is not None:
        raise InvalidRequest(finding.place, finding.reason)
    assert isinstance(document, dict)  # noqa: S101 - the schema said so; this tells the type checker
    return _request(document)


def new_request(**fields: object) -> JobRequest:
    """A request of these fields of the document; empty ones are left out.

    `schema_version`, and where they are missing `request_id` and `submitted_at`, are filled in.
    Raises `InvalidRequest`.
    """
    given = {key: value for key, value in fields.items() if value not in (None, "", (), [], {})}
    return validate(completed(given))


def completed(document: Mapping[str, object]) -> dict[str, object]:
    """The document with what a person need not write: schema_version, request_id and submitted_at."""
    now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return {"schema_version": SCHEMA_VERSION, "request_id": str(uuid.uuid4()), "submitted_at": now, **document}


def to_document(request: JobRequest) -> dict[str, Any]:
    """The document of a request, without its empty fields and defaults; `validate` gives the same request back."""
    fields = {
        "request_id": request.request_id,
        "runs_on": request.runs_on,
        "size": request.size,
        "repo_url": request.repo_url,
        "commit_sha": request.commit_sha,
        "ref": request.ref,
        "steps": [_step_document(step) for step in request.steps],
        "env": dict(request.env),
        "timeout_s": request.timeout_s,
        "concurrency_group": request.concurrency_group,
        "cancel_in_progress": request.cancel_in_progress,
        "artifacts": list(request.artifacts),
        "source": request.source,
        "submitted_at": request.submitted_at,
    }
    # apart from the others, because its 0 is a value
    priority = {} if request.priority == DEFAULT_PRIORITY else {"priority": request.priority}
    return {"schema_version": SCHEMA_VERSION} | _filled(fields) | priority


def encode(request: JobRequest) -> bytes:
    """The request as it is published.  Raises `InvalidRequest` if it is larger than `parse` takes."""
    body = json.dumps(to_document(request), ensure_ascii=False, allow_nan=False).encode()
    if len(body) > MAX_REQUEST_BYTES:
        raise InvalidRequest((), f"the document has {len(body)} bytes, the most is {MAX_REQUEST_BYTES}")
    return body


def _step_document(step: Step) -> dict[str, Any]:
    return _filled({"name": step.name, "run": step.run, "env": dict(step.env), "timeout_s": step.timeout_s})


def _filled(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if value}


def _request(document: Mapping[str, Any]) -> JobRequest:
    """A `JobRequest` from a document that fits the schema."""
    submitted_at = document.get("submitted_at", "")
    if submitted_at:
        _refuse_impossible_time(submitted_at)
    return JobRequest(
        request_id=document["request_id"].lower(),
        runs_on=document.get("runs_on", ""),
        steps=tuple(_step(step, number) for number, step in enumerate(document["steps"], 1)),
        size=document.get("size", ""),
        repo_url=document.get("repo_url", ""),
        commit_sha=document.get("commit_sha", ""),
        ref=document.get("ref", ""),
        env=document.get("env", {}),
        timeout_s=float(document.get("timeout_s", 0)),
        priority=int(document.get("priority", DEFAULT_PRIORITY)),
        concurrency_group=document.get("concurrency_group", ""),
        cancel_in_progress=document.get("cancel_in_progress", False),
        artifacts=tuple(document.get("artifacts", ())),
        source=document.get("source", ""),
        submitted_at=submitted_at,
    )


def _step(step: Mapping[str, Any], number: int) -> Step:
    name = step.get("name", f"step {number}")
    return Step(name, step["run"], step.get("env", {}), float(step.get("timeout_s", 0)))


def _refuse_impossible_time(text: str) -> None:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        raise InvalidRequest(("submitted_at",), "is a time that no calendar or clock has") from None


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        twice, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise InvalidRequest((), f"the document has the key {clip(twice)} twice in one object")
    return result


def _refuse_constant(name: str) -> None:
    raise InvalidRequest((), f"the document is not JSON: {name} is no number")
