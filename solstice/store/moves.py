"""The operations that move a job or an attempt.  Called by `group`.

Each reads the row, asks `lifecycle.move`, writes the change and the event, all in the one transaction: what a
supervisor believed when it asked does not matter.  Each may be asked again and then changes nothing.  An order about
an attempt that is over must not touch the job that has moved on, so the attempt is checked along with the state.

The statements are made once: SQLAlchemy takes longer to make one than the database to carry it out.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import bindparam, func, insert, select, update
from sqlalchemy.engine import Connection, Row
from sqlalchemy.sql import Update

from solstice.lifecycle import JOB_MOVES, PHASE_MOVES, IllegalMove, JobState, Phase, move
from solstice.protocol.store import (
    Accept,
    EnterPhase,
    ErrorKind,
    Finish,
    Refused,
    Reject,
    Release,
    Report,
    Start,
    Worker,
)
from solstice.store.events import tell, tell_rejected
from solstice.store.schema import attempts, events, jobs

Result = dict[str, Any]
# By name: no index finds what is not done.
OPEN_PHASES = [phase.value for phase in Phase if phase is not Phase.DONE]

# The values of an INSERT or UPDATE come with the execution; those of a WHERE have names that no column has.
_of_job = bindparam("of_job")
_of_attempt = bindparam("of_attempt")
_STATE = select(jobs.c.state).where(jobs.c.id == _of_job)
_KNOWN = select(jobs.c.state, jobs.c.host, jobs.c.accepted_at).where(jobs.c.id == _of_job)
_LOCKED_STATE = _STATE.with_for_update()
_LAST_ATTEMPT = select(func.max(attempts.c.attempt)).where(attempts.c.job == _of_job)
_ATTEMPT = select(attempts).where(attempts.c.job == _of_job, attempts.c.attempt == _of_attempt).with_for_update()
_COUNTED = select(func.count()).where(attempts.c.job == jobs.c.id, attempts.c.counted.is_(True)).scalar_subquery()
# inline: nobody asks for the number of the new row
_NEW_JOB = insert(jobs).inline()
_NEW_ATTEMPT = insert(attempts).inline()
_NEW_EVENT = insert(events).inline()
_CHANGE = update(jobs).where(jobs.c.id == _of_job)
_COUNT_ATTEMPTS = _CHANGE.values(attempts=_COUNTED)
_CHANGE_ATTEMPT = update(attempts).where(attempts.c.job == _of_job, attempts.c.attempt == _of_attempt)


def accept(db: Connection, asked: Accept) -> Result:
    known = db.execute(_KNOWN, {"of_job": asked.job}).one_or_none()
    if known is not None:
        # The same question, whose first answer was lost with the store, is answered as it was then: who asked does not
        # know the job yet.  A request that is delivered twice is asked about at another time.
        is_same = (known.host, known.accepted_at) == (asked.host, asked.at)
        return {"new": is_same, "state": known.state}
    new = {
        "id": asked.job,
        "request": json.dumps(asked.request),
        "label": asked.label,
        "image": asked.image,
        "state": JobState.ACCEPTED.value,
        "accepted_at": asked.at,
        "host": asked.host,
    }
    db.execute(_NEW_JOB, new)
    tell(db, asked.job, 0, asked.at)
    return {"new": True, "state": JobState.ACCEPTED}


def start(db: Connection, asked: Start) -> Result:
    state, last = _job(db, asked.job)
    if state is JobState.RUNNING and last == asked.attempt:
        running = _attempt(db, asked.job, last)
        if (running.backend, running.host) == (asked.backend, asked.host):
            return {"repeated": True}
    move(JOB_MOVES, state, JobState.RUNNING)
    if asked.attempt <= last:
        raise IllegalMove(f"illegal attempt {asked.attempt}", f"there was an attempt {last} already")
    new = {
        "job": asked.job,
        "attempt": asked.attempt,
        "phase": Phase.PREPARING.value,
        "backend": asked.backend,
        "host": asked.host,
        "image_digest": asked.image_digest,
        "started_at": asked.at,
        "timings": json.dumps({Phase.PREPARING: asked.at}),
    }
    db.execute(_NEW_ATTEMPT, new)
    _change(db, asked.job, _COUNT_ATTEMPTS, state=JobState.RUNNING.value, started_at=asked.at, not_before=None)
    tell(db, asked.job, asked.attempt, asked.at)
    return {"repeated": False}


def enter_phase(db: Connection, asked: EnterPhase) -> Result:
    attempt = _attempt(db, asked.job, asked.attempt)
    if _is_kept(attempt, asked.number):
        return {"repeated": True}
    _keep(db, asked, "phase", {"phase": asked.phase})
    current = Phase(attempt.phase)
    if current is asked.phase:
        return {"repeated": True}
    phase = move(PHASE_MOVES, current, asked.phase)
    timings = {**json.loads(attempt.timings), phase: asked.at}
    ended_at = asked.at if phase is Phase.DONE else None
    _change_attempt(db, asked.job, asked.attempt, phase=phase.value, timings=json.dumps(timings), ended_at=ended_at)
    return {"repeated": False}


def finish(db: Connection, asked: Finish) -> Result:
    state, last = _job(db, asked.job)
    if asked.number is not None and _is_kept(_attempt(db, asked.job, asked.attempt), asked.number):
        return {"repeated": True}
    steps = [dataclasses.asdict(step) for step in asked.steps]
    end = {"cause": asked.cause and asked.cause.value, "detail": asked.detail}
    _keep(db, asked, "finish", {"state": asked.state, "exit_code": asked.exit_code, "steps": steps, **end})
    if state is asked.state:
        return {"repeated": True}
    move(JOB_MOVES, state, asked.state)
    _check_current(state, last, asked.attempt)
    if asked.attempt:
        _change_attempt(db, asked.job, asked.attempt, outcome=asked.state.value, steps=json.dumps(steps), **end)
    _change(db, asked.job, _CHANGE, state=asked.state.value, exit_code=asked.exit_code, ended_at=asked.at, **end)
    tell(db, asked.job, asked.attempt, asked.at)
    return {"repeated": False}


def release(db: Connection, asked: Release) -> Result:
    state, last = _job(db, asked.job)
    attempt = _attempt(db, asked.job, asked.attempt)
    if _is_kept(attempt, asked.number):
        return {"repeated": True}
    end = {"cause": asked.cause.value, "detail": asked.detail}
    _keep(db, asked, "release", {"counted": asked.counted, **end})
    if attempt.outcome == JobState.ACCEPTED:
        return {"repeated": True}
    move(JOB_MOVES, state, JobState.ACCEPTED)
    _check_current(state, last, asked.attempt)
    outcome = JobState.ACCEPTED.value
    _change_attempt(db, asked.job, asked.attempt, outcome=outcome, counted=asked.counted, **end)
    _change(db, asked.job, _COUNT_ATTEMPTS, state=outcome, started_at=None, not_before=asked.not_before)
    tell(db, asked.job, asked.attempt, asked.at)
    return {"repeated": False}


def report(db: Connection, asked: Report) -> Result:
    if _is_kept(_attempt(db, asked.job, asked.attempt), asked.number):
        return {"repeated": True}
    _keep(db, asked, asked.kind, asked.report)
    return {"repeated": False}


def worker(db: Connection, asked: Worker) -> Result:
    _attempt(db, asked.job, asked.attempt)
    _change_attempt(db, asked.job, asked.attempt, pid=asked.pid, worker_started=asked.started)
    return {}


def reject(db: Connection, asked: Reject) -> Result:
    tell_rejected(db, asked)
    return {}


def _job(db: Connection, job: str) -> tuple[JobState, int]:
    """The job's state and the number of its last attempt, 0 if there was none.  Raises `Refused`."""
    state = db.execute(_LOCKED_STATE, {"of_job": job}).scalar_one_or_none()
    if state is None:
        raise Refused(ErrorKind.UNKNOWN_JOB, "no such job", f"{job:.40} was never accepted here")
    last = db.execute(_LAST_ATTEMPT, {"of_job": job}).scalar_one()
    return JobState(state), last or 0


def _attempt(db: Connection, job: str, attempt: int) -> Row[Any]:
    row = db.execute(_ATTEMPT, {"of_job": job, "of_attempt": attempt}).one_or_none()
    if row is None:
        raise Refused(ErrorKind.UNKNOWN_JOB, "no such attempt", f"{job:.40} has no attempt {attempt}")
    return row


def _is_kept(attempt: Row[Any], number: int | None) -> bool:
    return number is not None and number <= attempt.reported


def _keep(db: Connection, asked: EnterPhase | Finish | Release | Report, kind: str, report: Mapping[str, Any]) -> None:
    """Keep what the worker reported, if it was a worker.  That its move may be known already changes nothing about it:
    without its number, it would be read from the worker's journal again at each start."""
    if asked.number is None:
        return
    event = {
        "job": asked.job,
        "attempt": asked.attempt,
        "number": asked.number,
        "kind": kind,
        "report": json.dumps(report),
        "host_at": asked.at,
        "guest_at": asked.guest_at,
    }
    db.execute(_NEW_EVENT, event)
    _change_attempt(db, asked.job, asked.attempt, reported=asked.number)


def _check_current(state: JobState, last: int, attempt: int) -> None:
    current = last if state is JobState.RUNNING else 0
    if attempt != current:
        raise IllegalMove(f"illegal end by attempt {attempt}", f"the job is {state}, its running attempt is {current}")


def _change(db: Connection, job: str, statement: Update, **values: Any) -> None:
    db.execute(statement, {"of_job": job, **values})


def _change_attempt(db: Connection, job: str, attempt: int, **values: Any) -> None:
    db.execute(_CHANGE_ATTEMPT, {"of_job": job, "of_attempt": attempt, **values})
