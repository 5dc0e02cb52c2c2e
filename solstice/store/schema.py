"""The tables.  SQLAlchemy Core, no ORM; SQLite by default, and nothing in here that PostgreSQL would not take.

Times are float seconds since the epoch.  JSON is kept as text, as it was made: an event is published byte for byte as
it was written with the change that it tells of.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Float, ForeignKey, Integer, MetaData, String, Table, Text

# Raised by every change of the tables below.
SCHEMA_VERSION = 1

metadata = MetaData()
# SQLite counts only a column of exactly the type INTEGER.
_Counter = BigInteger().with_variant(Integer, "sqlite")

schema_version = Table("schema_version", metadata, Column("version", Integer, primary_key=True))

hosts = Table(
    "hosts",
    metadata,
    Column("owner", String, primary_key=True),
    Column("name", String, nullable=False),
    Column("first_seen", Float, nullable=False),
)

jobs = Table(
    "jobs",
    metadata,
    Column("seq", _Counter, primary_key=True),
    Column("id", String, nullable=False, unique=True),
    Column("request", Text, nullable=False),
    Column("label", String, nullable=False),
    Column("image", String, nullable=False),
    Column("state", String, nullable=False, index=True),
    Column("cause", String),
    Column("detail", Text, nullable=False, default=""),
    Column("exit_code", Integer),
    # how many attempts counted; the number of the last attempt may be higher
    Column("attempts", Integer, nullable=False, default=0),
    Column("accepted_at", Float, nullable=False),
    Column("started_at", Float),
    Column("ended_at", Float),
    # a seq is an order of acceptance, so that of a removed job must not come back
    sqlite_autoincrement=True,
)

attempts = Table(
    "attempts",
    metadata,
    Column("job", String, ForeignKey("jobs.id"), primary_key=True),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("phase", String, nullable=False, index=True),
    Column("backend", String, nullable=False),
    Column("host", String, nullable=False),
    # the state it led the job to, `accepted` if it was released; null while it is open
    Column("outcome", String),
    Column("counted", Boolean, nullable=False, default=True),
    Column("cause", String),
    Column("detail", Text, nullable=False, default=""),
    Column("started_at", Float, nullable=False),
    # {phase: when it was entered}
    Column("timings", Text, nullable=False),
    Column("ended_at", Float),
    Column("steps", Text, nullable=False, default="[]"),
)

outbox = Table(
    "outbox",
    metadata,
    Column("seq", _Counter, primary_key=True),
    Column("message_id", String, nullable=False, unique=True),
    Column("routing_key", String, nullable=False),
    Column("body", Text, nullable=False),
    Column("created_at", Float, nullable=False),
    # rows come and go all the time, and readers go by the order
    sqlite_autoincrement=True,
)
