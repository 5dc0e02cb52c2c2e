"""What the supervisor and the command line may ask of the store process, and how a message is checked.

Every message is one object of `protocol.lines`.  The first is `{"op": "configure", "id": 0, "url": URL, "host":
OWNER_ID}`; each further one is `{"op": NAME, "id": N, …}` with the fields of the class that `REQUESTS` has under that
name.  Each message gets exactly one reply: `{"id": N, "ok": true, "result": {…}}` as the class says, or `{"id": N,
"ok": false, "error": WHY, "kind": ErrorKind}`.  A reply with `ok` is sent only after the change is on the disk.  Every
request may be sent again when its reply was lost: the repeat changes nothing.

Before the reply to `configure` may come `{"id": 0, "upgrading": true}`: the tables are old, and the reply takes as long
as they are large.

Times (`at`) are float seconds since the epoch and come from the caller: the store reads no clock.

What a worker reports it numbers, from 1 in each attempt.  A request with a `number` is such a report: it is kept as an
event of the attempt, along with what it changes, and a number that is not above the highest one kept is a repeat.
`guest_at` is when it was in the guest, by the guest's clock.

`host` is the owner id of a state directory.  Hosts may share a database, and each asks for what is its own; what was
stored without a host belongs to the next one that says `host`.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from solstice.errors import Cause, SolsticeError
from solstice.lifecycle import JobState, Phase
from solstice.model import DiskFormat, StepResult
from solstice.protocol.lines import Message
from solstice.protocol.store_fields import Detail, Document, Limit, fields_of

# What is stored must fit into one line again when it is read back (protocol.lines.MAX_LINE), escaped twice.
MAX_REQUEST = 2 << 20
MAX_LABEL = 200
MAX_REPORT = 64 << 10
PRUNE_BATCH = 200
_NO_DETAIL = Detail("")
_SOME_ROWS = Limit(100)


class ErrorKind(StrEnum):
    """Why a request was refused: a move that the tables do not know, no such job or attempt, a message that is not
    understood, or a database that failed (the request may be sent again)."""

    ILLEGAL_MOVE = "illegal_move"
    UNKNOWN_JOB = "unknown_job"
    BAD_REQUEST = "bad_request"
    DATABASE = "database"


class Refused(SolsticeError):
    """The request changes nothing; `kind` says what is wrong with it."""

    def __init__(self, kind: ErrorKind, what: str, why: str = "", remedy: str = "") -> None:
        super().__init__(what, why, remedy)
        self.kind = kind


def bad_request(why: str) -> Refused:
    return Refused(ErrorKind.BAD_REQUEST, "the store does not understand the message", why)


def _check_number(number: int | None, attempt: int) -> None:
    if number is not None and (number < 1 or attempt < 1):
        raise bad_request("number and attempt of a report count from 1")


@dataclass(frozen=True, slots=True)
class Accept:
    """A validated `jobrequest.v1`; `label` is the text it asked for, `image` what that resolves to.
    → `{"new": bool, "state": JobState}`; the same `request_id` again is not new, whatever has become of it, and
    whichever host has it, unless the very same question, by the same host and `at`, is repeated."""

    request: Document
    label: str
    image: str
    at: float
    host: str | None = None

    def __post_init__(self) -> None:
        try:
            canonical = str(uuid.UUID(self.request["request_id"]))
        except (KeyError, ValueError, AttributeError, TypeError):
            canonical = ""
        if not canonical or canonical != self.job:
            raise bad_request("request.request_id is not a UUID in lower case with hyphens")
        if not 0 < len(self.label.encode()) <= MAX_LABEL:
            raise bad_request(f"label is not of 1 to {MAX_LABEL} bytes")
        if len(json.dumps(self.request)) > MAX_REQUEST:
            raise bad_request(f"request is longer than {MAX_REQUEST} bytes")

    @property
    def job(self) -> str:
        return str(self.request["request_id"])


@dataclass(frozen=True, slots=True)
class Start:
    """accepted → running: an attempt begins in `preparing`.  Attempts count from 1, and a number never comes back.
    `image_digest` is that of the base image it stands on, where it stands on one.  → `{"repeated": bool}`"""

    job: str
    attempt: int
    backend: str
    host: str
    at: float
    image_digest: str | None = None


@dataclass(frozen=True, slots=True)
class EnterPhase:
    """The attempt moves on; `done` ends it.  → `{"repeated": bool}`"""

    job: str
    attempt: int
    phase: Phase
    at: float
    number: int | None = None
    guest_at: float | None = None

    def __post_init__(self) -> None:
        _check_number(self.number, self.attempt)


@dataclass(frozen=True, slots=True)
class Report:
    """A worker reported what moves nothing; `kind` and `report` are its own words.  → `{"repeated": bool}`"""

    job: str
    attempt: int
    number: int
    kind: str
    report: Document
    at: float
    guest_at: float | None = None

    def __post_init__(self) -> None:
        _check_number(self.number, self.attempt)
        if len(json.dumps(self.report)) > MAX_REPORT:
            raise bad_request(f"report is longer than {MAX_REPORT} bytes")


@dataclass(frozen=True, slots=True)
class Worker:
    """The process that has the attempt: its pid, and when it started, as the caller tells it from another of that pid.
    → `{}`"""

    job: str
    attempt: int
    pid: int
    started: float


@dataclass(frozen=True, slots=True)
class Finish:
    """The job reaches a terminal state; `attempt` is the running one, or 0 for a job that still waits.
    → `{"repeated": bool}`, true if the job is in that state already."""

    job: str
    state: JobState
    at: float
    attempt: int = 0
    cause: Cause | None = None
    detail: Detail = _NO_DETAIL
    exit_code: int | None = None
    steps: tuple[StepResult, ...] = ()
    number: int | None = None
    guest_at: float | None = None

    def __post_init__(self) -> None:
        _check_number(self.number, self.attempt)
        if not self.state.is_terminal:
            raise bad_request(f"state {self.state} is not the end of a job")
        if (self.cause is None) != (self.state is JobState.SUCCEEDED):
            raise bad_request("every end of a job but success has a cause")


@dataclass(frozen=True, slots=True)
class Release:
    """running → accepted: the attempt failed and the job waits for another, until `not_before` at least.  An attempt
    that is not `counted` does not use up the job's retries.  → `{"repeated": bool}`"""

    job: str
    attempt: int
    cause: Cause
    at: float
    counted: bool
    detail: Detail = _NO_DETAIL
    not_before: float | None = None
    number: int | None = None
    guest_at: float | None = None

    def __post_init__(self) -> None:
        _check_number(self.number, self.attempt)


@dataclass(frozen=True, slots=True)
class Reject:
    """A message that never becomes a job: an event and nothing else.  `occasion` tells this rejection from others: the
    same one told again is the same event.  → `{}`"""

    request_id: str | None
    cause: Cause
    detail: Detail
    occasion: str
    at: float
    label: str | None = None
    host: str | None = None


@dataclass(frozen=True, slots=True)
class Open:
    """What a supervisor needs to recover, in pages.  → `{"jobs": […], "attempts": […], "more": bool}`: jobs that are
    not terminal with a `seq` above `after`, in order of acceptance; with the first page (`after` 0) all attempts that
    are not `done`, those of ended jobs too.  While `more`, ask again `after` the last job's `seq`.

    A job is a summary with "request" and "next_attempt".  Of an attempt come "job", "attempt", "phase", "backend",
    "host", "started_at", "reported" (the highest number of a report that is kept, 0 for none), "pid" and
    "worker_started" (null until `worker` said them), and the job's "label", "image" and "state"."""

    after: int = 0
    host: str | None = None


@dataclass(frozen=True, slots=True)
class Outbox:
    """→ `{"events": [{"seq", "message_id", "routing_key", "body"}, …]}`, oldest first; `body` is the JSON text to
    publish as it is.  Fewer than `limit` may come although there are more; none means that there are none."""

    limit: Limit = _SOME_ROWS
    host: str | None = None


@dataclass(frozen=True, slots=True)
class Sent:
    """The broker has confirmed these: they leave the outbox.  → `{}`"""

    message_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Jobs:
    """→ `{"jobs": [summary, …]}`, newest first; fewer than `limit` if they would not fit into one answer.  In a
    summary, "counted" is the number of attempts that use up retries, the running one included."""

    limit: Limit = _SOME_ROWS
    state: JobState | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """`job` is an id, or the beginning of exactly one (4 characters at least).
    → `{"job": summary with "request", "attempts": […]}`"""

    job: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[0-9a-f-]{4,36}", self.job):
            raise bad_request("job is not the beginning of a UUID, 4 characters at least")


@dataclass(frozen=True, slots=True)
class Known:
    """→ `{"jobs": [id, …]}`: those of the jobs that the database has, whichever host's."""

    jobs: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.jobs) > PRUNE_BATCH:
            raise bad_request(f"jobs has more than {PRUNE_BATCH} jobs")


@dataclass(frozen=True, slots=True)
class Counts:
    """→ `{"counts": {state: number}}`, every state present."""


@dataclass(frozen=True, slots=True)
class Durations:
    """How long attempts took that ran to their end, of the newest ones.  → `{"seconds": {image: mean}}`"""


@dataclass(frozen=True, slots=True)
class Host:
    """The state directory that speaks, by its owner id; `name` is for people and may change.  It gets what has no host.
    → `{}`"""

    owner: str
    name: str
    at: float


@dataclass(frozen=True, slots=True)
class Image:
    """A base image is ready; said again about a name, it replaces what was.  → `{}`"""

    name: str
    format: DiskFormat
    path: str
    at: float
    digest: str | None = None


@dataclass(frozen=True, slots=True)
class Images:
    """→ `{"images": [{"name", "digest", "format", "path", "ready_at"}, …]}`, by name."""


@dataclass(frozen=True, slots=True)
class Prune:
    """Forget jobs that ended before `older_than`, in batches, once their logs are gone; events that are not yet
    published stay.  → `{"jobs": [{"id", "seq"}, …]}`: the next ones with a `seq` above `after`.  The caller removes
    their logs, and names them in `removed` next time, with the last `seq` as `after`.  None means that there are no
    more.

    Logs go first: after a crash in between the job is still there, and comes again.  The other way round, nobody would
    know any more whose the logs are.  A job with an attempt that is not `done` is left alone."""

    older_than: float
    after: int = 0
    removed: tuple[str, ...] = ()
    host: str | None = None

    def __post_init__(self) -> None:
        if len(self.removed) > PRUNE_BATCH:
            raise bad_request(f"removed has more than {PRUNE_BATCH} jobs")


REQUESTS: Mapping[str, type[Any]] = {
    "accept": Accept,
    "start": Start,
    "phase": EnterPhase,
    "report": Report,
    "worker": Worker,
    "finish": Finish,
    "release": Release,
    "reject": Reject,
    "open": Open,
    "outbox": Outbox,
    "sent": Sent,
    "jobs": Jobs,
    "job": Job,
    "known": Known,
    "counts": Counts,
    "durations": Durations,
    "host": Host,
    "image": Image,
    "images": Images,
    "prune": Prune,
}


_FIELDS = {kind: fields_of(kind) for kind in REQUESTS.values()}


def parse(message: Message) -> Any:
    """The request in a message, an instance of one of `REQUESTS`.  Raises `Refused` with kind bad_request."""
    op = message.get("op")
    kind = REQUESTS.get(op) if isinstance(op, str) else None
    if kind is None:
        raise bad_request(f"op {op!r:.40} is none of {', '.join(REQUESTS)}")
    fields = _FIELDS[kind]
    given = {name: value for name, value in message.items() if name not in ("op", "id")}
    if unknown := given.keys() - fields.keys():
        raise bad_request(f"{op} has no field {', '.join(sorted(unknown))!r:.80}")
    if missing := {name for name, (_, needed) in fields.items() if needed} - given.keys():
        raise bad_request(f"{op} lacks {', '.join(sorted(missing))}")
    values = {}
    for name, value in given.items():
        try:
            values[name] = fields[name][0](value)
        except (TypeError, ValueError, KeyError) as error:
            raise bad_request(f"{op}.{name}: {error!s:.80}") from None
    return kind(**values)
