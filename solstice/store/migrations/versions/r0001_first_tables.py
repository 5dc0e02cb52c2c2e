"""The first tables: hosts, jobs, attempts, outbox."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_COUNTER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "hosts",
        sa.Column("owner", sa.String, primary_key=True),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("first_seen", sa.Float, nullable=False),
    )
    op.create_table(
        "jobs",
        sa.Column("seq", _COUNTER, primary_key=True),
        sa.Column("id", sa.String, nullable=False, unique=True),
        sa.Column("request", sa.Text, nullable=False),
        sa.Column("label", sa.String, nullable=False),
        sa.Column("image", sa.String, nullable=False),
        sa.Column("state", sa.String, nullable=False, index=True),
        sa.Column("cause", sa.String),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("exit_code", sa.Integer),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("accepted_at", sa.Float, nullable=False),
        sa.Column("started_at", sa.Float),
        sa.Column("ended_at", sa.Float),
        sqlite_autoincrement=True,
    )
    _create_attempts()
    op.create_table(
        "outbox",
        sa.Column("seq", _COUNTER, primary_key=True),
        sa.Column("message_id", sa.String, nullable=False, unique=True),
        sa.Column("routing_key", sa.String, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sqlite_autoincrement=True,
    )


def _create_attempts() -> None:
    op.create_table(
        "attempts",
        sa.Column("job", sa.String, sa.ForeignKey("jobs.id"), primary_key=True),
        sa.Column("attempt", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("phase", sa.String, nullable=False, index=True),
        sa.Column("backend", sa.String, nullable=False),
        sa.Column("host", sa.String, nullable=False),
        sa.Column("outcome", sa.String),
        sa.Column("counted", sa.Boolean, nullable=False),
        sa.Column("cause", sa.String),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("started_at", sa.Float, nullable=False),
        sa.Column("timings", sa.Text, nullable=False),
        sa.Column("ended_at", sa.Float),
        sa.Column("steps", sa.Text, nullable=False),
    )
