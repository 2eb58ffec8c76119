"""The index by which a claim finds an owner's next job holds the priority."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
_ELIGIBLE = sa.text("status IN ('queued', 'running')")


def upgrade() -> None:
    """Replace the index."""
    op.drop_index("jobs_in_turn", "jobs")
    op.create_index(
        "jobs_in_turn",
        "jobs",
        ["kind", "owner", sa.text("priority DESC"), "created_at", "id"],
        sqlite_where=_ELIGIBLE,
        postgresql_where=_ELIGIBLE,
    )
