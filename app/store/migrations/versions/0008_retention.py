"""When data sets and versions were last used by jobs that were removed since, and who does work of one process."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Add the columns and the table. Jobs that are still there say themselves what they used."""
    op.add_column("datasets", sa.Column("used_at", sa.Double()))
    op.add_column("versions", sa.Column("used_at", sa.Double()))
    op.create_table(
        "leases",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("lease_until", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="leases_pkey"),
    )
