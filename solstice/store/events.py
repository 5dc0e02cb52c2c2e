"""What the world is told: one `jobevent.v1` per change of a job's state, written to the outbox with the change.

The id of an event is a function of what it tells, so that a reader knows a repeat by it.  Publishing, and deleting
what was confirmed, is the supervisor's.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import Any

from sqlalchemy import and_, bindparam, insert, select
from sqlalchemy.engine import Connection

from solstice.errors import Cause
from solstice.protocol.store import MAX_LABEL, Reject
from solstice.store.schema import attempts, jobs, outbox

SCHEMA = "jobevent.v1"
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, f"urn:solstice:{SCHEMA}")

# The row of a job, with what its attempt has; that is null in all of them for a job that has not been tried.
_TRIED = (
    attempts.c.cause,
    attempts.c.detail,
    attempts.c.steps,
    attempts.c.backend,
    attempts.c.host,
    attempts.c.image_digest,
)
_WHAT_TO_TELL = (
    select(jobs, *(column.label(f"tried_{column.name}") for column in _TRIED))
    .outerjoin(attempts, and_(attempts.c.job == jobs.c.id, attempts.c.attempt == bindparam("of_attempt")))
    .where(jobs.c.id == bindparam("of_job"))
)
_KNOWN = select(outbox.c.seq).where(outbox.c.message_id == bindparam("of_message"))
# inline: nobody asks for the number of the new row
_NEW = insert(outbox).inline()


def tell(db: Connection, job_id: str, attempt: int, at: float) -> None:
    """The job has just got the state that its row has, by this attempt (0: by none)."""
    job = db.execute(_WHAT_TO_TELL, {"of_job": job_id, "of_attempt": attempt}).one()
    # a released attempt has a cause that its job, which waits again, has not
    cause, detail = (job.tried_cause, job.tried_detail) if attempt else (job.cause, job.detail)
    body = {
        "job_id": job.id,
        "state": job.state,
        "label": job.label,
        "image": job.image,
        "image_digest": job.tried_image_digest,
        "attempt": attempt,
        **_why(cause, detail),
        "exit_code": job.exit_code,
        "steps": json.loads(job.tried_steps or "[]"),
        "backend": job.tried_backend,
        "host": job.tried_host,
        "source": json.loads(job.request).get("source"),
        "accepted_at": job.accepted_at,
        "started_at": job.started_at,
        "ended_at": job.ended_at,
        "at": at,
    }
    _add(db, f"{job.id}/{attempt}/{job.state}", f"job.{job.state}.{job.label}", body, job.host)


def tell_rejected(db: Connection, rejected: Reject) -> None:
    """A request was turned away.  Told again about the same occasion it is the same event."""
    label = rejected.label or ""
    if not 0 < len(label.encode()) <= MAX_LABEL:
        # whoever sent it may have put anything there, and a routing key has at most 255 bytes
        label = "unknown"
    body = {
        "request_id": rejected.request_id,
        "state": "rejected",
        "label": label,
        **_why(rejected.cause, rejected.detail),
        "at": rejected.at,
    }
    _add(db, f"rejected/{rejected.occasion}/{rejected.cause}", f"job.rejected.{label}", body, rejected.host)


def _why(cause: str | None, detail: str) -> dict[str, str | None]:
    known = Cause(cause) if cause else None
    return {
        "cause": known,
        "cause_text": known.sentence if known else None,
        "remedy": known.remedy if known else None,
        "detail": detail,
    }


def _add(db: Connection, identity: str, routing_key: str, body: Mapping[str, Any], host: str | None) -> None:
    message_id = str(uuid.uuid5(_NAMESPACE, identity))
    if db.execute(_KNOWN, {"of_message": message_id}).first():
        return
    text = json.dumps({"schema_version": SCHEMA, "event_id": message_id, **body})
    new = {"message_id": message_id, "routing_key": routing_key, "body": text, "created_at": body["at"], "host": host}
    db.execute(_NEW, new)
