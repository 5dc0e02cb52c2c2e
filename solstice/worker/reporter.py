"""The voice of a worker on an errand (clean, list, probe): numbered reports, one line each, to its supervisor.

An errand has no journal and no other supervisor than the one that gave it: what cannot be delivered is lost, nobody
wants to know it any more.  An attempt speaks by its `Link`.
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
