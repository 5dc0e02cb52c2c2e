"""Opens the database: the engine, what the database must be told on each connection, and the tables.

Called once per process, by `__main__` or `solstice db`.  The pool holds one connection: the process has one thread, and
a connection that stays open keeps SQLite's log from being folded in after each commit.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy import create_engine, event
from sqlalchemy.engine import Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import QueuePool

from solstice.errors import UsageError
from solstice.store import lock, migrate, postgresql

BUSY_TIMEOUT = 5.0
_PRAGMAS = (
    # first, because the change to WAL needs the lock
    f"PRAGMA busy_timeout = {BUSY_TIMEOUT * 1000:.0f}",
    "PRAGMA journal_mode = WAL",
    # in WAL mode NORMAL would not wait for the disk, and "stored, then acked" would be a lie after a power cut
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
)

_REMEDIES = {
    "sqlite": "check that the directory exists, is writable and has space",
    "postgresql": "check that the server runs, and that this host, user and password may use the database",
}


@contextmanager
def opened(
    url: str, patience: float = lock.PATIENCE, owner: str | None = None, on_upgrade: Callable[[], None] = lambda: None
) -> Iterator[Engine]:
    """The engine for `url`, with the newest tables; this process alone has the SQLite file, or is the host `owner`'s.

    Waits `patience` seconds for that.  Calls `on_upgrade` before it upgrades tables, which may take as long as they are
    large, or waits for another host that does.  Raises `UsageError`, without the URL's password in it; so may each use
    of the engine that has to connect anew.
    """
    engine = connect(url)
    with lock.held(engine, patience, owner):
        try:
            _bring_up_to_date(engine, on_upgrade)
            yield engine
        finally:
            # before the lock is gone: whoever closes last folds the log into the file
            engine.dispose()


def _bring_up_to_date(engine: Engine, on_upgrade: Callable[[], None]) -> None:
    with transaction(engine) as db:
        found = migrate.current(db)
        migrate.refuse_newer(found, shown(engine))
    if found == migrate.HEAD:
        return
    if found is not None:
        on_upgrade()
    with postgresql.patient(engine), transaction(engine) as db:
        migrate.upgrade(db, shown(engine))


def connect(url: str) -> Engine:
    """The engine for `url`; the database is not touched.  Raises `UsageError`, without the URL's password in it."""
    try:
        engine = create_engine(
            make_url(url),
            future=True,
            hide_parameters=True,
            poolclass=QueuePool,
            pool_size=1,
            max_overflow=0,
            # a server that was started again meanwhile costs nobody an answer
            pool_pre_ping=not url.startswith("sqlite:"),
        )
    except (ArgumentError, NoSuchModuleError, ImportError, ValueError):
        # the exception's text may hold the whole URL
        remedy = "DATABASE_URL is like sqlite:////var/lib/solstice/solstice.db or postgresql://USER:PASSWORD@HOST/NAME"
        raise UsageError("the database cannot be opened", "no usable URL, or its driver is missing", remedy) from None
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", _begin)
    elif engine.dialect.name == "postgresql":
        postgresql.set_up(engine)
    return engine


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """One transaction, for those who have no use for what the database says: its errors become `UsageError`."""
    try:
        with engine.begin() as db:
            yield db
    except SQLAlchemyError as error:
        remedy = _REMEDIES[engine.dialect.name]
        raise UsageError(f"the database {shown(engine)} cannot be opened", reason(error), remedy) from None


def shown(engine: Engine) -> str:
    """The database's URL, for people: without its password, and without its options, where there may be another."""
    return str(engine.url.set(query={}).render_as_string(hide_password=True))


def reason(error: SQLAlchemyError) -> str:
    """What the database itself said, on one line, without the statement around it."""
    return " ".join(str(getattr(error, "orig", None) or error).split())


def _set_up_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    # By itself, Python's sqlite3 begins transactions when it sees fit and not before a SAVEPOINT: releasing the
    # outermost savepoint would then commit.  None turns that off, and `_begin` says BEGIN instead.
    connection.isolation_level = None
    for pragma in _PRAGMAS:
        connection.execute(pragma).close()


def _begin(db: Connection) -> None:
    # IMMEDIATE: a transaction that began as a reader cannot wait for the write lock, it fails at once.
    db.exec_driver_sql("BEGIN IMMEDIATE")
