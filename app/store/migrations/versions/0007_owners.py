"""Owners of versions and aliases, jobs of administrators, sizes of data sets."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

DATASETS = sa.table("datasets", sa.column("source", sa.JSON()), sa.column("size_bytes", sa.BigInteger()))


def upgrade() -> None:
    """Add the columns. A version takes the owner of the job that made it first, a data set the size of its upload.

    Until now, only a key with the scope admin could submit a job that moves an alias.
    """
    op.add_column("versions", sa.Column("owner", sa.String(), nullable=False, server_default=""))
    op.add_column("aliases", sa.Column("owner", sa.String(), nullable=False, server_default=""))
    op.add_column("jobs", sa.Column("by_admin", sa.Boolean(), nullable=False, server_default=sa.true()))
    op.add_column("datasets", sa.Column("size_bytes", sa.BigInteger(), nullable=False, server_default="0"))
    uploaded = DATASETS.c.source["size_bytes"].as_numeric(20, 0)
    op.execute(sa.update(DATASETS).where(uploaded.is_not(None)).values(size_bytes=uploaded))
    op.execute(
        "UPDATE versions SET owner = (SELECT jobs.owner FROM jobs WHERE jobs.id = versions.job_id) "
        "WHERE job_id IS NOT NULL"
    )
    op.create_index("jobs_by_owner", "jobs", ["owner", "created_at", "id"])
    op.create_index("jobs_by_owner_and_status", "jobs", ["owner", "status", "created_at", "id"])
    op.create_index("jobs_by_result", "jobs", ["result_version"])
    op.create_index("datasets_by_owner", "datasets", ["owner", "created_at", "id"])
