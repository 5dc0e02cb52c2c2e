"""Forgets jobs that ended long ago, with their attempts and events.  Called by `group`.

The outbox is left alone: what is told there stands by itself, and is nobody's to drop before it is published.
"""

from __future__ import annotations

from sqlalchemy import delete, exists, select
from sqlalchemy.engine import Connection

from solstice.lifecycle import JobState
from solstice.protocol.store import PRUNE_BATCH, Prune
from solstice.store.moves import OPEN_PHASES, Result
from solstice.store.schema import attempts, events, jobs

_TERMINAL = [state.value for state in JobState if state.is_terminal]


def prune(db: Connection, asked: Prune) -> Result:
    open_attempt = exists().where(attempts.c.job == jobs.c.id, attempts.c.phase.in_(OPEN_PHASES))
    old = (
        select(jobs.c.id, jobs.c.seq)
        .where(jobs.c.state.in_(_TERMINAL), jobs.c.ended_at < asked.older_than, ~open_attempt)
        .order_by(jobs.c.seq)
    )
    if asked.host is not None:
        old = old.where(jobs.c.host == asked.host)
    if asked.removed:
        _forget(db, list(db.execute(old.where(jobs.c.id.in_(asked.removed))).scalars()))
    page = db.execute(old.where(jobs.c.seq > asked.after).limit(PRUNE_BATCH))
    return {"jobs": [dict(row._mapping) for row in page]}


def _forget(db: Connection, ids: list[str]) -> None:
    for of_job in (events.c.job, attempts.c.job, jobs.c.id):
        db.execute(delete(of_job.table).where(of_job.in_(ids)))
