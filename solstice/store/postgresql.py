"""What holds for a connection to PostgreSQL: nothing is waited for longer than `PATIENCE`, whatever the server does;
but for a migration, which may take long.

The driver by itself waits as long as the kernel lets it, which is hours for a server that lost its power.  libpq's
settings (connect_timeout, keepalives, tcp_user_timeout) cover that, but not a server that is stopped or swaps, whose
kernel still answers.  So the waiting is done here.  The server has its own, shorter limit: what it ends itself leaves
the connection whole.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine

PATIENCE = 5.0
# Of a migration: a large table takes long, and so does another host that is at it.
UPGRADE_PATIENCE = 3600.0
# A server whose client is gone without a word must not keep the client's locks.
_IDLE_SECONDS = 60
_KEEPALIVE = {"tcp_keepalives_idle": 10, "tcp_keepalives_interval": 5, "tcp_keepalives_count": 4}


def set_up(engine: Engine) -> None:
    """Bound every wait on the connections of `engine`.  Called once, before the first of them."""
    engine.dialect.dbapi.extensions.set_wait_callback(_waiter(engine.dialect.dbapi, PATIENCE))
    event.listen(engine, "connect", _limit)


@contextmanager
def patient(engine: Engine) -> Iterator[None]:
    """Wait `UPGRADE_PATIENCE` seconds for each statement, a commit included; the server's own limit is the caller's.

    Of SQLite, nothing has to be asked.
    """
    if engine.dialect.name != "postgresql":
        yield
        return
    driver = engine.dialect.dbapi
    usual = driver.extensions.get_wait_callback()
    driver.extensions.set_wait_callback(_waiter(driver, UPGRADE_PATIENCE))
    try:
        yield
    finally:
        driver.extensions.set_wait_callback(usual)


def _waiter(driver: Any, patience: float) -> Callable[[Any], None]:
    """What waits for the server in the place of the driver."""

    def wait(connection: Any) -> None:
        deadline = time.monotonic() + patience
        while (state := connection.poll()) != driver.extensions.POLL_OK:
            poll = select.poll()
            reads = state == driver.extensions.POLL_READ
            poll.register(connection.fileno(), select.POLLIN if reads else select.POLLOUT)
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                # of this type, SQLAlchemy takes it for what the server could have said itself
                raise driver.OperationalError(f"the server did not answer within {patience:g} s")

    return wait


def _limit(connection: Any, _record: object) -> None:
    # not by the connection's options: poolers that stand in front of a server refuse those
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(f"SET statement_timeout = {PATIENCE * 800:.0f}")
        cursor.execute(f"SET idle_in_transaction_session_timeout = '{_IDLE_SECONDS}s'")
        for name, value in _KEEPALIVE.items():
            cursor.execute(f"SET {name} = {value}")
    connection.autocommit = False
