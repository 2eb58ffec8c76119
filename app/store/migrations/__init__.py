"""Alembic's folder: `env` connects it to `app.store.migrate`, `versions/` holds the steps."""
