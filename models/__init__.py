"""The exact part: checkpoints, encoding, scoring and evaluation. It knows no HTTP, no SQL and no Celery."""
