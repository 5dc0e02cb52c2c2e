"""Any orders in any sequence: the store does what a small model does.  A real SQLite file, in this process."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from solstice.lifecycle import JOB_MOVES, PHASE_MOVES, JobState, Phase
from solstice.protocol.lines import Message
from solstice.store.engine import open_database
from solstice.store.group import answer
from tests.store.process import accept, finish, new_job, release, start

JOBS = tuple(new_job() for _ in range(3))
jobs = st.sampled_from(JOBS)
numbers = st.integers(0, 4)


@dataclass
class Tried:
    phase: Phase = Phase.PREPARING
    released: bool = False
    counted: bool = True


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
        self.directory = tempfile.TemporaryDirectory()
        self.engine = open_database(f"sqlite:///{Path(self.directory.name) / 'test.db'}")
        self.known: dict[str, Known] = {}

    def teardown(self) -> None:
        self.engine.dispose()
        self.directory.cleanup()

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

    @rule(job=jobs, attempt=numbers, phase=st.sampled_from(Phase))
    def enters(self, job: str, attempt: int, phase: Phase) -> None:
        said = self.ask({"op": "phase", "job": job, "attempt": attempt, "phase": phase.value, "at": 3.0})
        known = self.known.get(job, Known())
        tried = known.attempts.get(attempt)
        if tried is None:
            assert said == "unknown_job"
        elif tried.phase is phase:
            assert said == "repeated"
        elif phase in PHASE_MOVES[tried.phase]:
            assert said == "done"
            tried.phase = phase
        else:
            assert said == "illegal_move"

    @rule(job=jobs, attempt=numbers, state=st.sampled_from([state for state in JobState if state.is_terminal]))
    def finishes(self, job: str, attempt: int, state: JobState) -> None:
        cause = None if state is JobState.SUCCEEDED else "infra.vm_lost"
        said, known = self.ask(finish(job, state.value, attempt, cause)), self.known.get(job)
        if known is None:
            assert said == "unknown_job"
        elif known.state is state:
            assert said == "repeated"
        elif state in JOB_MOVES[known.state] and attempt == known.current:
            assert said == "done"
            known.move(state, attempt)
        else:
            assert said == "illegal_move"

    @rule(job=jobs, attempt=numbers, counted=st.booleans())
    def releases(self, job: str, attempt: int, counted: bool) -> None:
        said, known = self.ask(release(job, attempt, counted)), self.known.get(job, Known())
        tried = known.attempts.get(attempt)
        if tried is None:
            assert said == "unknown_job"
        elif tried.released:
            assert said == "repeated"
        elif known.state is JobState.RUNNING and attempt == known.last:
            assert said == "done"
            tried.released, tried.counted = True, counted
            known.move(JobState.ACCEPTED, attempt)
        else:
            assert said == "illegal_move"

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
        assert {(row["job"], row["attempt"], row["phase"]) for row in opened["attempts"]} == {
            (job, n, t.phase.value) for job, k in known for n, t in k.attempts.items() if t.phase is not Phase.DONE
        }
        bodies = [json.loads(row["body"]) for row in outbox["events"]]
        for job, k in known:
            assert [f"{b['attempt']}/{b['state']}" for b in bodies if b["job_id"] == job] == k.told


TestStoreAgainstModel = StoreAgainstModel.TestCase
TestStoreAgainstModel.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
