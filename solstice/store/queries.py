"""The operations that move nothing, and the table of all operations.  Called by `group`.

An answer has to fit on one line of `protocol.lines`; what can grow beyond it (open jobs, the outbox) comes in pages
that are cut by their size.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import bindparam, delete, func, insert, select, update
from sqlalchemy.engine import Connection, Row

from solstice.lifecycle import JobState
from solstice.protocol import store as asked_for
from solstice.protocol.store import (
    Counts,
    Durations,
    ErrorKind,
    Host,
    Image,
    Images,
    Job,
    Jobs,
    Known,
    Open,
    Outbox,
    Refused,
    Sent,
    bad_request,
)
from solstice.store import moves, retention
from solstice.store.moves import OPEN_PHASES, Result
from solstice.store.schema import attempts, hosts, images, jobs, outbox

PAGE_BYTES = 2 << 20
# How many attempts an estimate is made of.
_PAST = 200
# By name: no index finds what is not something.
_OPEN_STATES = [state.value for state in JobState if not state.is_terminal]
_SUMMARY = (
    jobs.c.seq,
    jobs.c.id,
    jobs.c.label,
    jobs.c.image,
    jobs.c.state,
    jobs.c.cause,
    jobs.c.detail,
    jobs.c.exit_code,
    jobs.c.attempts.label("counted"),
    jobs.c.accepted_at,
    jobs.c.started_at,
    jobs.c.ended_at,
    jobs.c.not_before,
)
_IDENTITY = (
    attempts.c.job,
    attempts.c.attempt,
    attempts.c.phase,
    attempts.c.backend,
    attempts.c.host,
    attempts.c.started_at,
    attempts.c.reported,
    attempts.c.pid,
    attempts.c.worker_started,
)

# Made once, as those of `moves` are: the supervisor asks these for every job.
_OLDEST = (
    select(outbox.c.seq, outbox.c.message_id, outbox.c.routing_key, outbox.c.body)
    .order_by(outbox.c.seq)
    .limit(bindparam("most"))
)
_OLDEST_OF_HOST = _OLDEST.where(outbox.c.host == bindparam("of_host"))
_SENT = delete(outbox).where(outbox.c.message_id == bindparam("of_message"))


def open_jobs(db: Connection, asked: Open) -> Result:
    last = select(func.max(attempts.c.attempt)).where(attempts.c.job == jobs.c.id).scalar_subquery()
    statement = (
        select(*_SUMMARY, jobs.c.request, last.label("last_attempt"))
        .where(jobs.c.state.in_(_OPEN_STATES), jobs.c.seq > asked.after)
        .order_by(jobs.c.seq)
    )
    if asked.host is not None:
        statement = statement.where(jobs.c.host == asked.host)
    page: list[Result] = []
    room = PAGE_BYTES
    more = False
    for row in db.execute(statement):
        room -= len(row.request) + len(row.detail)
        if room < 0 and page:
            more = True
            break
        job = {**_plain(row), "request": json.loads(row.request), "next_attempt": (row.last_attempt or 0) + 1}
        del job["last_attempt"]
        page.append(job)
    return {"jobs": page, "attempts": [] if asked.after else _open_attempts(db, asked.host), "more": more}


def _open_attempts(db: Connection, host: str | None) -> list[Result]:
    statement = (
        select(*_IDENTITY, jobs.c.label, jobs.c.image, jobs.c.state)
        .join(jobs, jobs.c.id == attempts.c.job)
        .where(attempts.c.phase.in_(OPEN_PHASES))
        .order_by(jobs.c.seq, attempts.c.attempt)
    )
    if host is not None:
        # Not by the bare column: SQLite would go through all jobs of the host by its index.  What is open is little.
        statement = statement.where(func.coalesce(jobs.c.host, "") == host)
    return [_plain(row) for row in db.execute(statement)]


def oldest_events(db: Connection, asked: Outbox) -> Result:
    page: list[Result] = []
    room = PAGE_BYTES
    statement = _OLDEST if asked.host is None else _OLDEST_OF_HOST
    for row in db.execute(statement, {"most": asked.limit, "of_host": asked.host}):
        room -= len(row.body)
        if room < 0 and page:
            break
        page.append(_plain(row))
    return {"events": page}


def sent(db: Connection, asked: Sent) -> Result:
    if asked.message_ids:
        db.execute(_SENT, [{"of_message": message_id} for message_id in asked.message_ids])
    return {}


def newest_jobs(db: Connection, asked: Jobs) -> Result:
    statement = select(*_SUMMARY).order_by(jobs.c.seq.desc()).limit(asked.limit)
    if asked.state is not None:
        statement = statement.where(jobs.c.state == asked.state.value)
    page: list[Result] = []
    room = PAGE_BYTES
    for row in db.execute(statement):
        room -= len(row.detail)
        if room < 0 and page:
            break
        page.append(_plain(row))
    return {"jobs": page}


def one_job(db: Connection, asked: Job) -> Result:
    # A range, which an index finds whatever the collation: ids have digits of one case, and hyphens in fixed places.
    begins = (jobs.c.id >= asked.job, jobs.c.id < asked.job + "g", jobs.c.id.startswith(asked.job, autoescape=True))
    found = db.execute(select(*_SUMMARY, jobs.c.request).where(*begins).limit(2)).all()
    if not found:
        raise Refused(ErrorKind.UNKNOWN_JOB, "no such job", f"no id begins with {asked.job}")
    if len(found) > 1:
        raise bad_request(f"more than one job's id begins with {asked.job}")
    tried = db.execute(select(attempts).where(attempts.c.job == found[0].id).order_by(attempts.c.attempt))
    return {
        "job": {**_plain(found[0]), "request": json.loads(found[0].request)},
        "attempts": [
            {**_plain(row), "timings": json.loads(row.timings), "steps": json.loads(row.steps)} for row in tried
        ],
    }


def known(db: Connection, asked: Known) -> Result:
    return {"jobs": list(db.execute(select(jobs.c.id).where(jobs.c.id.in_(asked.jobs))).scalars())}


def counts(db: Connection, _asked: Counts) -> Result:
    found = db.execute(select(jobs.c.state, func.count()).group_by(jobs.c.state)).all()
    return {"counts": {**{state.value: 0 for state in JobState}, **{state: number for state, number in found}}}


def durations(db: Connection, _asked: Durations) -> Result:
    ran = [JobState.SUCCEEDED.value, JobState.FAILED.value, JobState.TIMED_OUT.value]
    newest = (
        select(jobs.c.image, (attempts.c.ended_at - attempts.c.started_at).label("seconds"))
        .join(jobs, jobs.c.id == attempts.c.job)
        # by the number: SQLite's index does not find what is not null
        .where(attempts.c.ended_at > 0.0, attempts.c.outcome.in_(ran))
        .order_by(attempts.c.ended_at.desc())
        .limit(_PAST)
        .subquery()
    )
    means = db.execute(select(newest.c.image, func.avg(newest.c.seconds)).group_by(newest.c.image))
    return {"seconds": {image: float(mean) for image, mean in means}}


def host(db: Connection, asked: Host) -> Result:
    changed = db.execute(update(hosts).where(hosts.c.owner == asked.owner).values(name=asked.name))
    if not changed.rowcount:
        db.execute(insert(hosts).values(owner=asked.owner, name=asked.name, first_seen=asked.at))
    # from before there was this column, in a database that hosts shared: one of them has to end it
    for table in (jobs, outbox):
        db.execute(update(table).where(table.c.host.is_(None)).values(host=asked.owner))
    return {}


def image(db: Connection, asked: Image) -> Result:
    values = {"digest": asked.digest, "format": asked.format.value, "path": asked.path, "ready_at": asked.at}
    changed = db.execute(update(images).where(images.c.name == asked.name).values(**values))
    if not changed.rowcount:
        db.execute(insert(images).values(name=asked.name, **values))
    return {}


def all_images(db: Connection, _asked: Images) -> Result:
    return {"images": [_plain(row) for row in db.execute(select(images).order_by(images.c.name))]}


def _plain(row: Row[Any]) -> Result:
    return dict(row._mapping)


OPERATIONS: Mapping[type[Any], Callable[[Connection, Any], Result]] = {
    asked_for.Accept: moves.accept,
    asked_for.Start: moves.start,
    asked_for.EnterPhase: moves.enter_phase,
    asked_for.Report: moves.report,
    asked_for.Worker: moves.worker,
    asked_for.Finish: moves.finish,
    asked_for.Release: moves.release,
    asked_for.Reject: moves.reject,
    Open: open_jobs,
    Outbox: oldest_events,
    Sent: sent,
    Jobs: newest_jobs,
    Job: one_job,
    Known: known,
    Counts: counts,
    Durations: durations,
    Host: host,
    Image: image,
    Images: all_images,
    asked_for.Prune: retention.prune,
}
