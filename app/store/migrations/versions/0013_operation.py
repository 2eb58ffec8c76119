"""The id of the data folder, workers that take no jobs, and counts of failures."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Add the tables, which are empty, and the column, which is null for every worker that is there."""
    op.create_table("data_folder", sa.Column("id", sa.String(), primary_key=True))
    op.create_table(
        "failures",
        sa.Column("kind", sa.String(), primary_key=True),
        sa.Column("outcome", sa.String(), primary_key=True),
        sa.Column("code", sa.String(), primary_key=True),
        sa.Column("count", sa.BigInteger(), nullable=False),
    )
    op.add_column("workers", sa.Column("out_because", sa.String()))
