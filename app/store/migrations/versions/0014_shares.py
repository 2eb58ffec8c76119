"""Priorities of jobs, the end of their turns, and the use that owners made of slots."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
_ELIGIBLE = sa.text("status IN ('queued', 'running')")


def upgrade() -> None:
    """Add an empty table, two columns and an index. A job that the release before inserts has the priority 0."""
    op.create_table(
        "slot_use",
        sa.Column("kind", sa.String(), primary_key=True),
        sa.Column("owner", sa.String(), primary_key=True),
        sa.Column("period", sa.BigInteger(), primary_key=True),
        sa.Column("used_s", sa.Double(), nullable=False),
    )
    op.add_column("jobs", sa.Column("priority", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("jobs", sa.Column("turn_over_at", sa.Double()))
    op.create_index(
        "jobs_in_turn",
        "jobs",
        ["kind", "owner", "created_at"],
        sqlite_where=_ELIGIBLE,
        postgresql_where=_ELIGIBLE,
    )
