"""Jobs per second through RabbitMQ with the noop back end, against the bare rate of the fork server.

Called by the executable file `dispatch` beside it, which says what is printed.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping

import psutil

from tests.bench import bare
from tests.bench.load import CONCURRENCY, Load, Missing, loaded

_WARM_UP = 50


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests/bench/dispatch", description=__doc__)
    parser.add_argument("--jobs", type=int, default=1000, metavar="N", help="how many jobs are measured [%(default)s]")
    jobs = parser.parse_args().jobs
    before = bare.rate(jobs, CONCURRENCY)
    try:
        with loaded() as load:
            seconds, cpu = _measure(load, jobs)
    except Missing as missing:
        print(missing)
        return 1
    # before and after, for a machine whose speed drifts
    bare_rate = (before + bare.rate(jobs, CONCURRENCY)) / 2
    print(f"{jobs} jobs, {CONCURRENCY} at a time, on {psutil.cpu_count()} processors")
    print(f"{'jobs':>12} {jobs / seconds:8.1f} /s")
    print(f"{'bare forks':>12} {bare_rate:8.1f} /s")
    for part, spent in cpu.items():
        print(f"{part:>12} {spent / jobs * 1000:8.2f} ms of CPU per job")
    print(f"{'sum':>12} {sum(cpu.values()) / jobs * 1000:8.2f} ms of CPU per job")
    print(f"ratio: {jobs / seconds / bare_rate:.2f}")
    return 0


def _measure(load: Load, jobs: int) -> tuple[float, dict[str, float]]:
    """Seconds for `jobs` jobs, and the CPU seconds that each part spent on them."""
    load.run(_WARM_UP)
    load.settle()
    processes = {**load.processes(), "this client": psutil.Process()}
    before = _cpu(processes)
    seconds = load.run(jobs)
    load.settle()
    return seconds, {part: spent - before[part] for part, spent in _cpu(processes).items()}


def _cpu(processes: Mapping[str, psutil.Process]) -> dict[str, float]:
    """The CPU seconds of each process so far; the workers' are those of the fork server's children that have ended."""
    spent = {}
    for part, process in processes.items():
        times = process.cpu_times()
        spent[part] = times.user + times.system
        if part == "fork server":
            spent["workers"] = times.children_user + times.children_system
    return spent
