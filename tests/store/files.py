"""SQLite files that the store did not make itself, and a way into those that it did."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from sqlalchemy import text

from solstice.store.engine import connect

# What the store made before there were migrations, with one running job; as sqlite3 writes it down.
_BEFORE_MIGRATIONS = Path(__file__).with_name("before_migrations.sql")


@contextmanager
def outsider(file: Path) -> Iterator[sqlite3.Connection]:
    """A connection that knows nothing of the store; each statement is a transaction."""
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        yield connection


def old_database(file: Path) -> None:
    with outsider(file) as connection:
        connection.executescript(_BEFORE_MIGRATIONS.read_text())


def set_back(url: str) -> None:
    """Make a database of the newest revision one of 0002: other indexes, and a column less."""
    engine = connect(url)
    with engine.begin() as db:
        for name in ("ix_jobs_state_seq", "ix_jobs_host_ended_at", "ix_attempts_ended_at", "ix_outbox_host_seq"):
            db.execute(text(f"DROP INDEX {name}"))
        db.execute(text("ALTER TABLE attempts DROP COLUMN image_digest"))
        db.execute(text("CREATE INDEX ix_jobs_state ON jobs (state)"))
        db.execute(text("UPDATE alembic_version SET version_num = '0002'"))
    engine.dispose()
