"""Histograms of what a data set holds."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Add the column, which is null for data sets that were checked before."""
    op.add_column("datasets", sa.Column("statistics", sa.JSON(none_as_null=True)))
