"""The tables.  SQLAlchemy Core, no ORM; SQLite by default, and nothing in here that PostgreSQL would not take.

Times are float seconds since the epoch.  JSON is kept as text, as it was made: an event is published byte for byte as
it was written with the change that it tells of.  A change here needs a revision in `migrations`, which a test compares
with this.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)

metadata = MetaData()
# SQLite counts only a column of exactly the type INTEGER.
_Counter = BigInteger().with_variant(Integer, "sqlite")

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
    Column("state", String, nullable=False),
    Column("cause", String),
    Column("detail", Text, nullable=False, default=""),
    Column("exit_code", Integer),
    # how many attempts counted; the number of the last attempt may be higher
    Column("attempts", Integer, nullable=False, default=0),
    Column("accepted_at", Float, nullable=False),
    Column("started_at", Float),
    Column("ended_at", Float),
    # a job that waits for another attempt waits at least until then
    Column("not_before", Float),
    # the owner id of the host that accepted it
    Column("host", String),
    Index("ix_jobs_state_seq", "state", "seq"),
    Index("ix_jobs_host_ended_at", "host", "ended_at"),
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
    Column("ended_at", Float, index=True),
    Column("steps", Text, nullable=False, default="[]"),
    # the highest number of a report that is in `events`
    Column("reported", Integer, nullable=False, server_default="0"),
    # the worker that has it: together they are one process of that host
    Column("pid", Integer),
    Column("worker_started", Float),
    # of the base image that its VM stands on, as the image map's source sent it
    Column("image_digest", String),
)

# What workers reported, as they numbered it; kept for people, and the source of nothing.
events = Table(
    "events",
    metadata,
    Column("job", String, primary_key=True),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("kind", String, nullable=False),
    Column("report", Text, nullable=False),
    Column("host_at", Float, nullable=False),
    # by the guest's clock, which may be wrong: that is why it is kept
    Column("guest_at", Float),
    ForeignKeyConstraint(["job", "attempt"], ["attempts.job", "attempts.attempt"]),
)

outbox = Table(
    "outbox",
    metadata,
    Column("seq", _Counter, primary_key=True),
    Column("message_id", String, nullable=False, unique=True),
    Column("routing_key", String, nullable=False),
    Column("body", Text, nullable=False),
    Column("created_at", Float, nullable=False),
    # who publishes it; hosts that share a database would otherwise all do
    Column("host", String),
    Index("ix_outbox_host_seq", "host", "seq"),
    # rows come and go all the time, and readers go by the order
    sqlite_autoincrement=True,
)

images = Table(
    "images",
    metadata,
    Column("name", String, primary_key=True),
    Column("digest", String),
    Column("format", String, nullable=False),
    Column("path", String, nullable=False),
    Column("ready_at", Float, nullable=False),
)
