"""Whether the broker may deliver.  Level-triggered, like the scheduler: `look` may be called at any time.

Closed, the consumer is cancelled; nothing is ever sent back to say "not now".  It is closed while as many jobs wait as
may (PENDING_LIMIT; it opens again when a quarter of them has gone, so that it does not flutter), while the host drains,
and while deliveries are not taken in time: the store does not answer, or the broker takes no dead letters.  Such
deliveries are held for `HOLD_LIMIT` seconds, and then their channel is closed, so that another host can have them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from solstice.broker.connection import Connection
from solstice.supervisor.intake import Intake

PATIENCE = 0.5
HOLD_LIMIT = 300.0
OPEN = "taking jobs"
LATE = "deliveries wait: the store does not answer, or the broker takes no dead letters"

log = logging.getLogger(__name__)


class Valve:
    """`pending()` is how many jobs wait, `limit()` how many may."""

    def __init__(
        self, connection: Connection, intake: Intake, pending: Callable[[], int], limit: Callable[[], int]
    ) -> None:
        self._connection = connection
        self._intake = intake
        self._pending = pending
        self._limit = limit
        self._timer: asyncio.TimerHandle | None = None
        self._is_full = False
        self._has_dropped = False
        self._stopping = False
        self.draining = False
        self.state = OPEN
        """What it does now, for people."""

    @property
    def consuming(self) -> bool:
        """Whether the broker delivers now: what was decided takes it a moment."""
        return self._connection.consuming

    @property
    def is_quiet(self) -> bool:
        """Nothing comes any more, and all that came is stored."""
        return not self._connection.consuming and not self._intake.taking

    async def not_consuming(self) -> None:
        """Return when the broker delivers nothing."""
        await self._connection.not_consuming()

    def look(self) -> None:
        """Open or close, as things are now."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        state = self._closed_by() or OPEN
        if state != self.state:
            log.log(logging.WARNING if state is LATE else logging.DEBUG, "intake: %s", state)
            self.state = state
            if state is OPEN:
                self._connection.resume()
            else:
                self._connection.pause()
        self._give_up()
        if self._intake.taking:
            limit = PATIENCE if self._intake.oldest() < PATIENCE else HOLD_LIMIT
            wait = max(PATIENCE / 2, limit - self._intake.oldest())
            self._timer = asyncio.get_running_loop().call_later(wait, self.look)

    def close(self) -> None:
        """Closed for good: the host stops."""
        self._stopping = True
        self.look()

    def _closed_by(self) -> str | None:
        if self._stopping:
            return "stopping"
        if self.draining:
            return "draining, no new jobs are taken (solstice resume)"
        if self._intake.oldest() >= PATIENCE:
            return LATE
        limit, waiting = self._limit(), self._pending() + self._intake.taking
        self._is_full = waiting >= limit or (self._is_full and waiting > limit * 3 // 4)
        return "as many jobs wait as may (PENDING_LIMIT)" if self._is_full else None

    def _give_up(self) -> None:
        if not self._intake.taking:
            self._has_dropped = False
        elif self._intake.oldest() >= HOLD_LIMIT and not self._has_dropped:
            self._has_dropped = True
            log.error("deliveries could not be taken for %.0f s, and go back to the broker", HOLD_LIMIT)
            self._connection.drop()
