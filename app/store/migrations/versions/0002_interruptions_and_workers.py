"""Interruptions, running time and progress of jobs; the workers that live."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the columns and the table."""
    for column in (
        sa.Column("interruptions", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("max_interruptions", sa.Integer(), nullable=False, server_default="100"),
        sa.Column("furthest_step", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("run_time_s", sa.Double(), nullable=False, server_default="0"),
        sa.Column("max_run_time_s", sa.Double(), nullable=False, server_default="604800"),
        sa.Column("claimed_at", sa.Double()),
        sa.Column("files_removed_at", sa.Double()),
    ):
        op.add_column("jobs", column)
    # Progress used to raise the limit of attempts; now it takes their number back to 1.
    op.execute(
        "UPDATE jobs SET attempt = attempt - (max_attempts - 3), max_attempts = 3 "
        "WHERE max_attempts > 3 AND status NOT IN ('cancelled', 'succeeded', 'failed')"
    )
    op.create_table(
        "workers",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("host", sa.String(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("queue", sa.String(), nullable=False),
        sa.Column("device", sa.String(), nullable=False),
        sa.Column("version", sa.String(), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=False),
        sa.Column("seen_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="workers_pkey"),
    )
