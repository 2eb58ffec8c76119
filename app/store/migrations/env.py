"""Run by Alembic: use the connection, and the transaction, of `sds_clip.app.store.migrate`."""

from alembic import context

from sds_clip.app.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # SQLite's DDL is as transactional as PostgreSQL's; its dialect in Alembic assumes an older driver's habits.
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
