from __future__ import annotations

import pytest

from solstice.lifecycle import JOB_MOVES, PHASE_MOVES, IllegalMove, JobState, Phase, diagram, move
from tests.sources import ROOT

TERMINAL = {JobState.SUCCEEDED, JobState.FAILED, JobState.ERRORED, JobState.TIMED_OUT, JobState.CANCELLED}


def test_the_tables_name_every_state_and_every_phase() -> None:
    assert JOB_MOVES.keys() == set(JobState)
    assert PHASE_MOVES.keys() == set(Phase)


@pytest.mark.parametrize("target", JobState)
@pytest.mark.parametrize("current", JobState)
def test_a_job_moves_as_the_table_says_and_not_otherwise(current: JobState, target: JobState) -> None:
    if target in JOB_MOVES[current]:
        assert move(JOB_MOVES, current, target) is target
    else:
        with pytest.raises(IllegalMove, match=f"illegal move {current} → {target}"):
            move(JOB_MOVES, current, target)


@pytest.mark.parametrize("target", Phase)
@pytest.mark.parametrize("current", Phase)
def test_an_attempt_moves_as_the_table_says_and_not_otherwise(current: Phase, target: Phase) -> None:
    if target in PHASE_MOVES[current]:
        assert move(PHASE_MOVES, current, target) is target
    else:
        with pytest.raises(IllegalMove):
            move(PHASE_MOVES, current, target)


def test_an_illegal_move_changes_nothing_and_names_what_may_follow() -> None:
    state = JobState.ACCEPTED
    before = {source: set(targets) for source, targets in JOB_MOVES.items()}
    with pytest.raises(IllegalMove, match="from accepted may follow cancelled, errored, running"):
        state = move(JOB_MOVES, state, JobState.SUCCEEDED)
    assert state is JobState.ACCEPTED
    assert before == JOB_MOVES


def test_nothing_follows_a_terminal_state() -> None:
    assert {state for state in JobState if state.is_terminal} == TERMINAL
    with pytest.raises(IllegalMove, match="it is the end"):
        move(JOB_MOVES, JobState.FAILED, JobState.RUNNING)


def test_every_job_can_come_to_an_end_from_where_it_is() -> None:
    for state in set(JobState) - TERMINAL:
        assert JOB_MOVES[state] & TERMINAL


def test_a_retry_is_the_only_way_back() -> None:
    order = list(JobState)
    backward = {(a, b) for a, targets in JOB_MOVES.items() for b in targets if order.index(b) <= order.index(a)}
    assert backward == {(JobState.RUNNING, JobState.ACCEPTED)}


def test_a_crash_in_any_phase_leads_to_cleaning_and_nothing_is_done_without_it() -> None:
    for phase in set(Phase) - {Phase.CLEANING, Phase.DONE}:
        assert Phase.CLEANING in PHASE_MOVES[phase]
    assert {phase for phase in Phase if Phase.DONE in PHASE_MOVES[phase]} == {Phase.CLEANING}


def test_a_phase_never_comes_back() -> None:
    order = list(Phase)
    for phase, targets in PHASE_MOVES.items():
        assert all(order.index(target) > order.index(phase) for target in targets)


def test_the_diagram_draws_each_move_once_and_marks_the_ends() -> None:
    drawn = diagram(JOB_MOVES).splitlines()
    assert drawn[0] == "stateDiagram-v2"
    moves = {f"    {source} --> {target}" for source, targets in JOB_MOVES.items() for target in targets}
    ends = {f"    {state} --> [*]" for state in TERMINAL}
    assert set(drawn[1:]) == moves | ends
    assert len(drawn) == 1 + len(moves) + len(ends)


@pytest.mark.parametrize("drawn", [diagram(JOB_MOVES), diagram(PHASE_MOVES)], ids=["job", "attempt"])
def test_the_readme_shows_the_diagram_that_the_table_makes(drawn: str) -> None:
    assert f"```mermaid\n{drawn}\n```\n" in (ROOT / "README.md").read_text()
