"""Versions whose files were found to be damaged."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the time at which that was found; none where the files are whole as far as is known."""
    op.add_column("versions", sa.Column("damaged_at", sa.Double()))
