"""Opens the database: the engine, what SQLite must be told on each connection, and the version of the tables.

Called once per process, by `__main__`, which disposes of the engine at its end.  The pool holds one connection: the
process has one thread, and a connection that stays open keeps SQLite's log from being folded in after each commit.
"""

from __future__ import annotations

import sqlite3

from sqlalchemy import create_engine, event, insert, inspect, select
from sqlalchemy.engine import Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import QueuePool

from solstice.errors import UsageError
from solstice.store.schema import SCHEMA_VERSION, metadata, schema_version

BUSY_TIMEOUT = 5.0
_PRAGMAS = (
    # first, because the change to WAL needs the lock
    f"PRAGMA busy_timeout = {BUSY_TIMEOUT * 1000:.0f}",
    "PRAGMA journal_mode = WAL",
    # in WAL mode NORMAL would not wait for the disk, and "stored, then acked" would be a lie after a power cut
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
)


def open_database(url: str) -> Engine:
    """The engine for `url`, with all tables made.  Raises `UsageError`, without the URL's password in it."""
    try:
        parsed = make_url(url)
        shown = parsed.render_as_string(hide_password=True)
        engine = create_engine(
            parsed, future=True, hide_parameters=True, poolclass=QueuePool, pool_size=1, max_overflow=0
        )
    except (ArgumentError, NoSuchModuleError, ImportError):
        # the exception's text may hold the whole URL
        remedy = "DATABASE_URL is like sqlite:////var/lib/solstice/solstice.db"
        raise UsageError("the database cannot be opened", "no usable URL, or its driver is missing", remedy) from None
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", _begin)
    try:
        with engine.begin() as db:
            _make_tables(db, shown)
    except SQLAlchemyError as error:
        engine.dispose()
        remedy = "check that the directory exists, is writable and has space"
        raise UsageError(f"the database {shown} cannot be opened", reason(error), remedy) from None
    except UsageError:
        engine.dispose()
        raise
    return engine


def reason(error: SQLAlchemyError) -> str:
    """What the database itself said, without the statement around it."""
    return str(getattr(error, "orig", None) or error)


def _set_up_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    # By itself, Python's sqlite3 begins transactions when it sees fit and not before a SAVEPOINT: releasing the
    # outermost savepoint would then commit.  None turns that off, and `_begin` says BEGIN instead.
    connection.isolation_level = None
    for pragma in _PRAGMAS:
        connection.execute(pragma).close()


def _begin(db: Connection) -> None:
    # IMMEDIATE: a transaction that began as a reader cannot wait for the write lock, it fails at once.
    db.exec_driver_sql("BEGIN IMMEDIATE")


def _make_tables(db: Connection, shown: str) -> None:
    if inspect(db).has_table(schema_version.name):
        found = db.execute(select(schema_version.c.version)).scalar_one()
        if found > SCHEMA_VERSION:
            raise UsageError(
                f"the database {shown} cannot be used",
                f"its tables have version {found}, and this Solstice knows version {SCHEMA_VERSION}",
                "install the newer Solstice again, or restore the database from before the upgrade",
            )
        return
    metadata.create_all(db)
    db.execute(insert(schema_version).values(version=SCHEMA_VERSION))
