"""The operations that move a job or an attempt.  Called by `group`, each in a savepoint of its own.

Each reads the row, asks `lifecycle.move`, writes the change and the event, all in the one transaction: what a
supervisor believed when it asked does not matter.  Each may be asked again and then changes nothing.  An order about
an attempt that is over must not touch the job that has moved on, so the attempt is checked along with the state.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from sqlalchemy import func, insert, select, update
from sqlalchemy.engine import Connection, Row

from solstice.lifecycle import JOB_MOVES, PHASE_MOVES, IllegalMove, JobState, Phase, move
from solstice.protocol.store import Accept, EnterPhase, ErrorKind, Finish, Refused, Reject, Release, Start
from solstice.store.events import tell, tell_rejected
from solstice.store.schema import attempts, jobs

Result = dict[str, Any]


def accept(db: Connection, asked: Accept) -> Result:
    known = db.execute(select(jobs.c.state).where(jobs.c.id == asked.job)).scalar_one_or_none()
    if known is not None:
        return {"new": False, "state": known}
    db.execute(
        insert(jobs).values(
            id=asked.job,
            request=json.dumps(asked.request),
            label=asked.label,
            image=asked.image,
            state=JobState.ACCEPTED.value,
            accepted_at=asked.at,
        )
    )
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
    db.execute(
        insert(attempts).values(
            job=asked.job,
            attempt=asked.attempt,
            phase=Phase.PREPARING.value,
            backend=asked.backend,
            host=asked.host,
            started_at=asked.at,
            timings=json.dumps({Phase.PREPARING: asked.at}),
        )
    )
    _change(db, asked.job, state=JobState.RUNNING.value, started_at=asked.at)
    tell(db, asked.job, asked.attempt, asked.at)
    return {"repeated": False}


def enter_phase(db: Connection, asked: EnterPhase) -> Result:
    attempt = _attempt(db, asked.job, asked.attempt)
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
    if state is asked.state:
        return {"repeated": True}
    move(JOB_MOVES, state, asked.state)
    _check_current(state, last, asked.attempt)
    end = {"cause": asked.cause and asked.cause.value, "detail": asked.detail}
    steps = json.dumps([dataclasses.asdict(step) for step in asked.steps])
    if asked.attempt:
        _change_attempt(db, asked.job, asked.attempt, outcome=asked.state.value, steps=steps, **end)
    _change(db, asked.job, state=asked.state.value, exit_code=asked.exit_code, ended_at=asked.at, **end)
    tell(db, asked.job, asked.attempt, asked.at)
    return {"repeated": False}


def release(db: Connection, asked: Release) -> Result:
    state, last = _job(db, asked.job)
    if _attempt(db, asked.job, asked.attempt).outcome == JobState.ACCEPTED:
        return {"repeated": True}
    move(JOB_MOVES, state, JobState.ACCEPTED)
    _check_current(state, last, asked.attempt)
    _change_attempt(
        db,
        asked.job,
        asked.attempt,
        outcome=JobState.ACCEPTED.value,
        counted=asked.counted,
        cause=asked.cause.value,
        detail=asked.detail,
    )
    _change(db, asked.job, state=JobState.ACCEPTED.value, started_at=None)
    tell(db, asked.job, asked.attempt, asked.at)
    return {"repeated": False}


def reject(db: Connection, asked: Reject) -> Result:
    tell_rejected(db, asked)
    return {}


def _job(db: Connection, job: str) -> tuple[JobState, int]:
    """The job's state and the number of its last attempt, 0 if there was none.  Raises `Refused`."""
    state = db.execute(select(jobs.c.state).where(jobs.c.id == job).with_for_update()).scalar_one_or_none()
    if state is None:
        raise Refused(ErrorKind.UNKNOWN_JOB, "no such job", f"{job:.40} was never accepted here")
    last = db.execute(select(func.max(attempts.c.attempt)).where(attempts.c.job == job)).scalar_one()
    return JobState(state), last or 0


def _attempt(db: Connection, job: str, attempt: int) -> Row[Any]:
    row = db.execute(select(attempts).where(attempts.c.job == job, attempts.c.attempt == attempt)).one_or_none()
    if row is None:
        raise Refused(ErrorKind.UNKNOWN_JOB, "no such attempt", f"{job:.40} has no attempt {attempt}")
    return row


def _check_current(state: JobState, last: int, attempt: int) -> None:
    current = last if state is JobState.RUNNING else 0
    if attempt != current:
        raise IllegalMove(f"illegal end by attempt {attempt}", f"the job is {state}, its running attempt is {current}")


def _change(db: Connection, job: str, **values: Any) -> None:
    counted = select(func.count()).where(attempts.c.job == job, attempts.c.counted.is_(True)).scalar_subquery()
    db.execute(update(jobs).where(jobs.c.id == job).values(attempts=counted, **values))


def _change_attempt(db: Connection, job: str, attempt: int, **values: Any) -> None:
    db.execute(update(attempts).where(attempts.c.job == job, attempts.c.attempt == attempt).values(**values))
