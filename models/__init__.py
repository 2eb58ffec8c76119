"""The models: checkpoints, encoding, scoring, training and evaluation. Nothing here knows HTTP, SQL or Celery."""
