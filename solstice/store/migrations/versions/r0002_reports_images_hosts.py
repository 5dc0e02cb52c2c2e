"""What workers reported and who they are, when a job may be tried again, whose a job is, and the images."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "events",
        sa.Column("job", sa.String, primary_key=True),
        sa.Column("attempt", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("report", sa.Text, nullable=False),
        sa.Column("host_at", sa.Float, nullable=False),
        sa.Column("guest_at", sa.Float),
        sa.ForeignKeyConstraint(["job", "attempt"], ["attempts.job", "attempts.attempt"]),
    )
    op.create_table(
        "images",
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("digest", sa.String),
        sa.Column("format", sa.String, nullable=False),
        sa.Column("path", sa.String, nullable=False),
        sa.Column("ready_at", sa.Float, nullable=False),
    )
    op.add_column("attempts", sa.Column("reported", sa.Integer, nullable=False, server_default="0"))
    op.add_column("attempts", sa.Column("pid", sa.Integer))
    op.add_column("attempts", sa.Column("worker_started", sa.Float))
    op.add_column("jobs", sa.Column("not_before", sa.Float))
    op.add_column("jobs", sa.Column("host", sa.String))
    op.add_column("outbox", sa.Column("host", sa.String))
    # until now, a database was that of one host
    hosts = sa.table("hosts", sa.column("owner"))
    one = sa.select(sa.func.count()).select_from(hosts).scalar_subquery() == 1
    owner = sa.select(sa.func.max(hosts.c.owner)).scalar_subquery()
    for name in ("jobs", "outbox"):
        op.execute(sa.update(sa.table(name, sa.column("host"))).where(one).values(host=owner))
