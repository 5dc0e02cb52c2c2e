"""The exit codes of `run` and `enqueue --wait`: the job's own where it has one, the usual ones of Unix elsewhere.

0      succeeded
N      failed: the exit status of the step that failed
2      the command line, the configuration or this host is at fault
65     the request was rejected (EX_DATAERR)
75     errored: the infrastructure failed, trying again may help (EX_TEMPFAIL)
124    timed out, as timeout(1) has it
130    cancelled, or interrupted by Ctrl-C
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
