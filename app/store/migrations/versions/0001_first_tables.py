"""The first tables: jobs, events, metrics, data sets, versions, aliases, promotions."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make every table."""
    op.create_table(
        "datasets",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("format", sa.String(), nullable=False),
        sa.Column("source", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("content_hash", sa.String()),
        sa.Column("counts", sa.JSON(none_as_null=True)),
        sa.Column("problems", sa.JSON(none_as_null=True)),
        sa.Column("folder", sa.String()),
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("checked_at", sa.Double()),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("lease_until", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="datasets_pkey"),
    )
    op.create_index("datasets_by_status", "datasets", ["status", "created_at", "id"])
    op.create_index("datasets_by_time", "datasets", ["created_at", "id"])
    op.create_table(
        "jobs",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("request", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("config", sa.JSON(none_as_null=True)),
        sa.Column("stage", sa.String()),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("steps", sa.BigInteger()),
        sa.Column("estimated_finish", sa.Double()),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("max_attempts", sa.Integer(), nullable=False),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("lease_owner", sa.String()),
        sa.Column("lease_until", sa.Double()),
        sa.Column("queued_at", sa.Double()),
        sa.Column("not_before", sa.Double(), nullable=False),
        sa.Column("cancel_requested_at", sa.Double()),
        sa.Column("pause_requested_at", sa.Double()),
        sa.Column("result_version", sa.String()),
        sa.Column("result", sa.JSON(none_as_null=True)),
        sa.Column("error", sa.JSON(none_as_null=True)),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("started_at", sa.Double()),
        sa.Column("finished_at", sa.Double()),
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("idempotency_key", sa.String()),
        sa.Column("payload_hash", sa.String(), nullable=False),
        sa.Column("seed", sa.BigInteger()),
        sa.Column("suffix", sa.String()),
        sa.Column("metadata", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("event_count", sa.BigInteger(), nullable=False),
        sa.Column("pruned_at", sa.Double()),
        sa.PrimaryKeyConstraint("id", name="jobs_pkey"),
        sa.UniqueConstraint("owner", "idempotency_key", name="jobs_owner_key"),
    )
    op.create_index("jobs_by_kind", "jobs", ["kind", "created_at", "id"])
    op.create_index("jobs_by_kind_and_status", "jobs", ["kind", "status", "created_at", "id"])
    op.create_index("jobs_by_status", "jobs", ["status", "created_at", "id"])
    op.create_index("jobs_by_time", "jobs", ["created_at", "id"])
    op.create_index(
        "jobs_eligible",
        "jobs",
        ["kind", "created_at", "id"],
        sqlite_where=sa.text("status IN ('queued', 'running')"),
        postgresql_where=sa.text("status IN ('queued', 'running')"),
    )
    op.create_index(
        "jobs_unpruned",
        "jobs",
        ["finished_at"],
        sqlite_where=sa.text("pruned_at IS NULL"),
        postgresql_where=sa.text("pruned_at IS NULL"),
    )
    op.create_table(
        "promotions",
        sa.Column(
            "id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False
        ),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("who", sa.String(), nullable=False),
        sa.Column("alias", sa.String(), nullable=False),
        sa.Column("from_version", sa.String()),
        sa.Column("to_version", sa.String(), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("why", sa.String(), nullable=False),
        sa.Column("metrics", sa.JSON(none_as_null=True)),
        sa.Column("job_id", sa.String()),
        sa.Column("forced", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="promotions_pkey"),
    )
    op.create_index("promotions_by_alias", "promotions", ["alias", "id"])
    op.create_table(
        "events",
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("level", sa.String(), nullable=False),
        sa.Column("type", sa.String(), nullable=False),
        sa.Column("message", sa.String(), nullable=False),
        sa.Column("data", sa.JSON(none_as_null=True)),
        sa.Column("at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="events_job_id_fkey"),
        sa.PrimaryKeyConstraint("job_id", "number", name="events_pkey"),
    )
    op.create_table(
        "job_datasets",
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("dataset_id", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["dataset_id"], ["datasets.id"], name="job_datasets_dataset_id_fkey"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="job_datasets_job_id_fkey"),
        sa.PrimaryKeyConstraint("job_id", "dataset_id", name="job_datasets_pkey"),
    )
    op.create_index("job_datasets_by_dataset", "job_datasets", ["dataset_id"])
    op.create_table(
        "metrics",
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("values", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="metrics_job_id_fkey"),
        sa.PrimaryKeyConstraint("job_id", "step", name="metrics_pkey"),
    )
    op.create_table(
        "versions",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("base", sa.String()),
        sa.Column("base_version", sa.String()),
        sa.Column("job_id", sa.String()),
        sa.Column("folder", sa.String()),
        sa.Column("description", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["base_version"], ["versions.id"], name="versions_base_version_fkey"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="versions_job_id_fkey"),
        sa.PrimaryKeyConstraint("id", name="versions_pkey"),
        sa.UniqueConstraint("job_id", name="versions_job_id_key"),
    )
    op.create_index("versions_by_base", "versions", ["base_version"])
    op.create_index("versions_by_status", "versions", ["status", "created_at", "id"])
    op.create_index("versions_by_time", "versions", ["created_at", "id"])
    op.create_table(
        "aliases",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("version", sa.String(), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("previous", sa.String()),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["previous"], ["versions.id"], name="aliases_previous_fkey"),
        sa.ForeignKeyConstraint(["version"], ["versions.id"], name="aliases_version_fkey"),
        sa.PrimaryKeyConstraint("name", name="aliases_pkey"),
    )
    op.create_index("aliases_by_version", "aliases", ["version"])
    op.create_table(
        "job_versions",
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("version_id", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="job_versions_job_id_fkey"),
        sa.ForeignKeyConstraint(["version_id"], ["versions.id"], name="job_versions_version_id_fkey"),
        sa.PrimaryKeyConstraint("job_id", "version_id", name="job_versions_pkey"),
    )
    op.create_index("job_versions_by_version", "job_versions", ["version_id"])
