"""Aliases that were removed."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Add the column, which is null for every alias that is there."""
    op.add_column("aliases", sa.Column("removed_at", sa.Double()))
