"""The exact part: checkpoints, encoding, scoring and evaluation. Knows no HTTP, no SQL and no Celery."""
