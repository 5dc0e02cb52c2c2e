"""The supervisor's memory and descriptors after 200 jobs and after 2,000 in one run.

Called by the executable file `memory` beside it, which says what is printed.
"""

from __future__ import annotations

import time

import psutil

from tests.bench.load import Load, Missing, loaded

_FIRST = 200
_LAST = 2000


def main() -> int:
    try:
        with loaded() as load:
            early = _look(load, _FIRST)
            late = _look(load, _LAST - _FIRST)
    except Missing as missing:
        print(missing)
        return 1
    for part, (rss, descriptors) in early.items():
        later_rss, later_descriptors = late[part]
        print(f"{part:>12} {rss:7.1f} -> {later_rss:7.1f} MB {descriptors:5} -> {later_descriptors} descriptors")
    print(f"growth: {late['supervisor'][0] - early['supervisor'][0]:.1f} MB")
    return int(any(early[part][1] < late[part][1] for part in early))


def _look(load: Load, jobs: int) -> dict[str, tuple[float, int]]:
    """Run so many jobs; then the resident megabytes and open descriptors of each of Solstice's lasting processes."""
    load.run(jobs)
    load.settle()
    processes = load.processes()
    del processes["broker"]
    return {part: (process.memory_info().rss / 1e6, _descriptors(process)) for part, process in processes.items()}


def _descriptors(process: psutil.Process) -> int:
    """What stays open: the fewest in a second, for a question on the control socket takes one for a moment."""
    seen = []
    for _ in range(10):
        seen.append(process.num_fds())
        time.sleep(0.1)
    return min(seen)
