"""Owners of versions and aliases; which jobs an administrator submitted."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0005"


def upgrade() -> None:
    """Add the columns. A version takes the owner of the job that made it first.

    Until now, only a key with the scope admin could submit a job that moves an alias.
    """
    op.add_column("versions", sa.Column("owner", sa.String(), nullable=False, server_default=""))
    op.add_column("aliases", sa.Column("owner", sa.String(), nullable=False, server_default=""))
    op.add_column("jobs", sa.Column("by_admin", sa.Boolean(), nullable=False, server_default=sa.true()))
    op.execute(
        "UPDATE versions SET owner = (SELECT jobs.owner FROM jobs WHERE jobs.id = versions.job_id) "
        "WHERE job_id IS NOT NULL"
    )
    op.create_index("jobs_by_owner", "jobs", ["owner", "created_at", "id"])
    op.create_index("jobs_by_owner_and_status", "jobs", ["owner", "status", "created_at", "id"])
    op.create_index("jobs_by_result", "jobs", ["result_version"])
    op.create_index("datasets_by_owner", "datasets", ["owner", "created_at", "id"])
