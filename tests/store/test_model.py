"""Any orders in any sequence: the store does what a small model does.  Real databases, in this process."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from solstice.lifecycle import JOB_MOVES, PHASE_MOVES, JobState, Phase
from solstice.protocol.lines import Message
from solstice.store.engine import opened
from solstice.store.group import answer
from tests.real.postgresql import Postgresql
from tests.store.process import accept, finish, new_job, release, start

JOBS = tuple(new_job() for _ in range(3))
TERMINAL = [state for state in JobState if state.is_terminal]
jobs = st.sampled_from(JOBS)
numbers = st.integers(0, 4)
reports = st.none() | st.integers(1, 6)


@dataclass
class Tried:
    phase: Phase = Phase.PREPARING
    released: bool = False
    counted: bool = True
    reported: int = 0

    def knows(self, report: int | None) -> bool:
        return report is not None and report <= self.reported

    def keep(self, report: int | None, said: str) -> None:
        """What was not refused is kept, whether it moved anything or not."""
        if report is not None and said in ("done", "repeated"):
            self.reported = report


@dataclass
class Known:
    """What the model knows of one job."""

    state: JobState = JobState.ACCEPTED
    attempts: dict[int, Tried] = field(default_factory=dict)
    told: list[str] = field(default_factory=lambda: ["0/accepted"])

    @property
    def last(self) -> int:
        return max(self.attempts, default=0)

    @property
    def current(self) -> int:
        return self.last if self.state is JobState.RUNNING else 0

    def move(self, state: JobState, attempt: int) -> None:
        self.state = state
        self.told.append(f"{attempt}/{state}")


class StoreAgainstModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.closing = ExitStack()
        self.engine = self.closing.enter_context(opened(self.closing.enter_context(self.new_database())))
        self.known: dict[str, Known] = {}

    def new_database(self) -> AbstractContextManager[str]:
        """The URL of an empty one, for as long as it is wanted."""
        raise NotImplementedError

    def teardown(self) -> None:
        self.closing.close()

    def ask(self, message: Message) -> str:
        """`done`, `repeated` or the kind of the refusal."""
        (reply,) = answer(self.engine, [{"id": 1, **message}])
        if not reply["ok"]:
            return str(reply["kind"])
        return "repeated" if reply["result"].get("repeated") else "done"

    @rule(job=jobs)
    def accepts(self, job: str) -> None:
        assert self.ask(accept(job)) == "done"
        self.known.setdefault(job, Known())

    @rule(job=jobs, attempt=numbers)
    def starts(self, job: str, attempt: int) -> None:
        said, known = self.ask(start(job, attempt)), self.known.get(job)
        if known is None:
            assert said == "unknown_job"
        elif known.state is JobState.RUNNING and attempt == known.last:
            assert said == "repeated"
        elif known.state is JobState.ACCEPTED and attempt > known.last:
            assert said == "done"
            known.attempts[attempt] = Tried()
            known.move(JobState.RUNNING, attempt)
        else:
            assert said == "illegal_move"

    @rule(job=jobs, attempt=numbers, phase=st.sampled_from(Phase), report=reports)
    def enters(self, job: str, attempt: int, phase: Phase, report: int | None) -> None:
        entered = {"op": "phase", "job": job, "attempt": attempt, "phase": phase.value, "at": 3.0, "number": report}
        said = self.ask(entered)
        known = self.known.get(job, Known())
        tried = known.attempts.get(attempt)
        if report is not None and attempt == 0:
            assert said == "bad_request"
        elif tried is None:
            assert said == "unknown_job"
        elif tried.knows(report):
            assert said == "repeated"
        else:
            if tried.phase is phase:
                assert said == "repeated"
            elif phase in PHASE_MOVES[tried.phase]:
                assert said == "done"
                tried.phase = phase
            else:
                assert said == "illegal_move"
            tried.keep(report, said)

    @rule(job=jobs, attempt=numbers, state=st.sampled_from(TERMINAL), report=reports)
    def finishes(self, job: str, attempt: int, state: JobState, report: int | None) -> None:
        cause = None if state is JobState.SUCCEEDED else "infra.vm_lost"
        said = self.ask({**finish(job, state.value, attempt, cause), "number": report})
        known, tried = self.known.get(job), self.known.get(job, Known()).attempts.get(attempt)
        if report is not None and attempt == 0:
            assert said == "bad_request"
        elif known is None or (report is not None and tried is None):
            assert said == "unknown_job"
        elif tried is not None and tried.knows(report):
            assert said == "repeated"
        else:
            if known.state is state:
                assert said == "repeated"
            elif state in JOB_MOVES[known.state] and attempt == known.current:
                assert said == "done"
                known.move(state, attempt)
            else:
                assert said == "illegal_move"
            if tried is not None:
                tried.keep(report, said)

    @rule(job=jobs, attempt=numbers, counted=st.booleans(), report=reports)
    def releases(self, job: str, attempt: int, counted: bool, report: int | None) -> None:
        said = self.ask({**release(job, attempt, counted), "number": report})
        known = self.known.get(job, Known())
        tried = known.attempts.get(attempt)
        if report is not None and attempt == 0:
            assert said == "bad_request"
        elif tried is None:
            assert said == "unknown_job"
        elif tried.knows(report):
            assert said == "repeated"
        else:
            if tried.released:
                assert said == "repeated"
            elif known.state is JobState.RUNNING and attempt == known.last:
                assert said == "done"
                tried.released, tried.counted = True, counted
                known.move(JobState.ACCEPTED, attempt)
            else:
                assert said == "illegal_move"
            tried.keep(report, said)

    @rule(job=jobs, attempt=st.integers(1, 4), report=st.integers(1, 6))
    def reports(self, job: str, attempt: int, report: int) -> None:
        told = {
            "op": "report",
            "job": job,
            "attempt": attempt,
            "number": report,
            "kind": "step",
            "report": {},
            "at": 3.0,
        }
        said = self.ask(told)
        tried = self.known.get(job, Known()).attempts.get(attempt)
        if tried is None:
            assert said == "unknown_job"
        else:
            assert said == ("repeated" if tried.knows(report) else "done")
            tried.keep(report, said)

    @invariant()
    def store_is_as_the_model(self) -> None:
        asked: list[Message] = [{"op": "open"}, {"op": "jobs"}, {"op": "outbox", "limit": 1000}]
        opened, listed, outbox = (reply["result"] for reply in answer(self.engine, asked))
        known = self.known.items()
        assert {(row["id"], row["state"], row["counted"]) for row in listed["jobs"]} == {
            (job, k.state.value, sum(t.counted for t in k.attempts.values())) for job, k in known
        }
        assert [(row["id"], row["next_attempt"]) for row in opened["jobs"]] == [
            (job, k.last + 1) for job, k in known if not k.state.is_terminal
        ]
        assert {(row["job"], row["attempt"], row["phase"], row["reported"]) for row in opened["attempts"]} == {
            (job, n, t.phase.value, t.reported)
            for job, k in known
            for n, t in k.attempts.items()
            if t.phase is not Phase.DONE
        }
        bodies = [json.loads(row["body"]) for row in outbox["events"]]
        for job, k in known:
            assert [f"{b['attempt']}/{b['state']}" for b in bodies if b["job_id"] == job] == k.told


class OnSqlite(StoreAgainstModel):
    @contextmanager
    def new_database(self) -> Iterator[str]:
        with tempfile.TemporaryDirectory() as folder:
            yield f"sqlite:///{folder}/test.db"


def test_store_does_what_the_model_does_with_sqlite() -> None:
    run_state_machine_as_test(OnSqlite, settings=settings(max_examples=40, stateful_step_count=25, deadline=None))


@pytest.mark.postgresql
def test_store_does_what_the_model_does_with_postgresql(postgresql: Postgresql) -> None:
    class OnPostgresql(StoreAgainstModel):
        def new_database(self) -> AbstractContextManager[str]:
            return postgresql.database()

    run_state_machine_as_test(OnPostgresql, settings=settings(max_examples=20, stateful_step_count=25, deadline=None))
