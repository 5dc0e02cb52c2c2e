"""A worker's voice: numbered reports, one line each, to the supervisor.

When the supervisor is gone the worker learns it from `Channel` the next time it listens; a report that cannot be
delivered is not an error of the worker's.
"""

from __future__ import annotations

import contextlib
import itertools

from solstice.host import clock
from solstice.host.channel import Channel, Closed
from solstice.protocol import reports


class Reporter:
    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._numbers = itertools.count(1)

    def send(self, report: reports.Report) -> None:
        message = reports.encode(report, next(self._numbers), clock.wall())
        with contextlib.suppress(Closed):
            self._channel.send(message)
