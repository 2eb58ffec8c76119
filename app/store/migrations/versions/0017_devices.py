"""How many devices a job needs."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    """Add a column. A job that the release before inserts needs one device."""
    op.add_column("jobs", sa.Column("devices", sa.Integer(), nullable=False, server_default="1"))
