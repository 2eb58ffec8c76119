"""Alembic's folder: `env` connects it to `sds_clip.app.store.migrate`, `versions/` holds the steps."""
