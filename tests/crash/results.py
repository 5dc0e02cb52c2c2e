"""The terminal events in the durable queue, as a reader has them who looks there from time to time."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

import pika

from solstice.broker.topology import RESULTS

_SLICE = 0.1


@dataclass
class Ended:
    """What was published of one job: its states, and how often each message id came."""

    states: set[str] = field(default_factory=set)
    ids: dict[str, int] = field(default_factory=lambda: defaultdict(int))


class Results:
    """Every terminal event that was ever taken from the queue at `url`, by job."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.of: dict[str, Ended] = defaultdict(Ended)

    def wait(self, jobs: Iterable[str], seconds: float) -> None:
        """Take events until each of the jobs has one.  Raises `AssertionError` with the jobs that have none."""
        deadline = time.monotonic() + seconds
        missing = set(jobs)
        with pika.BlockingConnection(pika.URLParameters(self._url)) as connection:
            taken = connection.channel().consume(RESULTS, inactivity_timeout=_SLICE, auto_ack=True)
            for method, properties, body in taken:
                if method is not None:
                    missing.discard(self._take(properties.message_id, json.loads(body)))
                elif not missing:
                    return
                assert time.monotonic() < deadline, f"no terminal event of {missing}"

    def _take(self, message_id: str, event: dict[str, str]) -> str:
        ended = self.of[event["job_id"]]
        ended.states.add(event["state"])
        ended.ids[message_id] += 1
        return event["job_id"]
