"""Names of jobs, and the search for names."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Add the column, which is empty for a job without a name, and an index for each table."""
    op.add_column("jobs", sa.Column("name", sa.String(), nullable=False, server_default=""))
    op.create_index("jobs_by_name", "jobs", ["name"])
    op.create_index("datasets_by_name", "datasets", ["name"])
