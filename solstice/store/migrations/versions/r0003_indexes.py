"""Indexes for what is asked again and again: nothing that a supervisor asks reads a table from its beginning."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_index("ix_jobs_state_seq", "jobs", ["state", "seq"])
    op.create_index("ix_jobs_host_ended_at", "jobs", ["host", "ended_at"])
    op.create_index("ix_attempts_ended_at", "attempts", ["ended_at"])
    op.create_index("ix_outbox_host_seq", "outbox", ["host", "seq"])
    # the new one begins with the same column
    op.drop_index("ix_jobs_state", "jobs")
