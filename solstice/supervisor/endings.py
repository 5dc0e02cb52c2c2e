"""The end of a job that no attempt ends: what was pending is cancelled or impossible, what ran lost its host."""

from __future__ import annotations

import logging

from solstice.errors import Cause
from solstice.host import clock
from solstice.lifecycle import JobState
from solstice.model import Outcome
from solstice.protocol.codec import to_plain
from solstice.protocol.lines import Message
from solstice.supervisor.store import Store

log = logging.getLogger(__name__)


def errored(cause: Cause, detail: str) -> Outcome:
    return Outcome(JobState.ERRORED, cause, detail)


def cancelled(detail: str) -> Outcome:
    return Outcome(JobState.CANCELLED, Cause.CANCELLED, detail)


def known(job: Message, attempt: Message) -> Outcome:
    """The outcome that the store has of an attempt: its own, or else its job's."""
    state = job["state"] if attempt["outcome"] in (None, JobState.ACCEPTED.value) else attempt["outcome"]
    cause = attempt["cause"] or job["cause"]
    return Outcome(JobState(state), Cause(cause) if cause else None, attempt["detail"], job["exit_code"])


async def end(store: Store, job: str, label: str, outcome: Outcome, attempt: int = 0) -> None:
    """Store how a job ended, and say it; `attempt` is the one that ran, 0 if the job was pending."""
    await store.change("finish", job=job, attempt=attempt, **to_plain(outcome), at=clock.wall())
    context = {"job": job, "label": label, "attempt": attempt, "cause": outcome.cause or "none"}
    log.warning("job %s: %s", outcome.state, outcome.detail, extra=context)
