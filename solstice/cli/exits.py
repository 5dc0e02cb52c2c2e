"""The exit codes: the job's own where a command has one to give, the usual ones of Unix elsewhere.

0      succeeded; a command of an operator was answered
N      failed: the exit status of the step that failed
1      refused: the supervisor cannot do it (no such job or label, a job that has ended), and its answer says why;
       of `db check`: the tables are not up to date
2      the command line, the configuration or this host is at fault; no supervisor answers
65     the request was rejected (EX_DATAERR)
75     errored: the infrastructure failed, trying again may help (EX_TEMPFAIL)
124    timed out, as timeout(1) has it
130    cancelled, or interrupted by Ctrl-C; `top` ends by it, and with 0
"""

from __future__ import annotations

REJECTED = 65
ERRORED = 75
TIMED_OUT = 124
INTERRUPTED = 130

_FIXED = {
    "succeeded": 0,
    "errored": ERRORED,
    "timed_out": TIMED_OUT,
    "cancelled": INTERRUPTED,
    "rejected": REJECTED,
}


def exit_code(state: str, of_step: int | None) -> int:
    """The exit code for a terminal state; `of_step` is the exit status of the step that failed."""
    return _FIXED.get(state, of_step or 1)
