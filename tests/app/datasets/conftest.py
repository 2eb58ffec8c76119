"""The service of tests/app/jobs, for the routes of data sets."""

from tests.app.jobs.conftest import (
    database_url,
    make_database,
    make_service,
    migrated,
    refusing,
    roots,
    service,
)

__all__ = ["database_url", "make_database", "make_service", "migrated", "refusing", "roots", "service"]
