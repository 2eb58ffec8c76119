"""Checks of data sets: who does one, and how many were interrupted."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the columns. An attempt used to be a check that was begun; now it is one whose process died."""
    op.add_column("datasets", sa.Column("interruptions", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("datasets", sa.Column("lease_owner", sa.String()))
    op.execute("UPDATE datasets SET attempt = 0 WHERE status = 'validating'")
