"""The second release. Its number counts the steps in which it was made, none of which was in a release.

Last uses of what retention may remove, what programs of two releases must know of each other, names of jobs, histograms
of data sets, removed aliases, the data folder's id, workers that take no jobs, counts of failures, turns, and jobs of
several devices. Checks of data sets are jobs, for which the tables stay.
"""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0007"
_ELIGIBLE = sa.text("status IN ('queued', 'running')")


def upgrade() -> None:
    """Add columns and tables. What is there has none of what is new, and every program knows the jobs that are there.

    The release before inserts jobs without a name, of the priority 0, that need one device.
    """
    for table, column in (
        ("datasets", sa.Column("used_at", sa.Double())),
        ("versions", sa.Column("used_at", sa.Double())),
        ("jobs", sa.Column("format", sa.Integer(), nullable=False, server_default="0")),
        ("workers", sa.Column("clock_skew_s", sa.Double())),
        ("jobs", sa.Column("name", sa.String(), nullable=False, server_default="")),
        ("datasets", sa.Column("statistics", sa.JSON(none_as_null=True))),
        ("aliases", sa.Column("removed_at", sa.Double())),
        ("workers", sa.Column("out_because", sa.String())),
        ("jobs", sa.Column("priority", sa.Integer(), nullable=False, server_default="0")),
        ("jobs", sa.Column("turn_over_at", sa.Double())),
        ("jobs", sa.Column("devices", sa.Integer(), nullable=False, server_default="1")),
    ):
        op.add_column(table, column)
    op.create_table(
        "leases",
        sa.Column("name", sa.String(), primary_key=True),
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("lease_until", sa.Double(), nullable=False),
    )
    op.create_table("oldest_program", sa.Column("revision", sa.String(), primary_key=True))
    op.create_table("data_folder", sa.Column("id", sa.String(), primary_key=True))
    op.create_table(
        "failures",
        sa.Column("kind", sa.String(), primary_key=True),
        sa.Column("outcome", sa.String(), primary_key=True),
        sa.Column("code", sa.String(), primary_key=True),
        sa.Column("count", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "slot_use",
        sa.Column("kind", sa.String(), primary_key=True),
        sa.Column("owner", sa.String(), primary_key=True),
        sa.Column("period", sa.BigInteger(), primary_key=True),
        sa.Column("used_s", sa.Double(), nullable=False),
    )
    op.create_index("jobs_by_name", "jobs", ["name"])
    op.create_index("datasets_by_name", "datasets", ["name"])
    op.create_index(
        "jobs_in_turn",
        "jobs",
        ["kind", "owner", sa.text("priority DESC"), "created_at", "id"],
        sqlite_where=_ELIGIBLE,
        postgresql_where=_ELIGIBLE,
    )
