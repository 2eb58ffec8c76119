"""Why a worker paused a job."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the column; jobs that were paused before were paused by a person."""
    op.add_column("jobs", sa.Column("pause_reason", sa.JSON(none_as_null=True)))
