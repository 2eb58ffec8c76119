"""What programs of two releases must know of each other, and the clocks of workers."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Add the columns and the table, which `sds_clip.app.store.migrate` fills. Every program knows earlier jobs."""
    op.add_column("jobs", sa.Column("format", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("workers", sa.Column("clock_skew_s", sa.Double()))
    op.create_table("oldest_program", sa.Column("revision", sa.String(), primary_key=True))
