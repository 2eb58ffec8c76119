"""What each line of the audit is, and where a rollback went back to; locks of aliases."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add the columns. A rollback that was made before cannot be told from a promotion, and counts as one."""
    op.add_column("aliases", sa.Column("lock", sa.JSON(none_as_null=True)))
    op.add_column("promotions", sa.Column("action", sa.String(), nullable=False, server_default="promote"))
    op.add_column("promotions", sa.Column("back_to", sa.BigInteger()))
