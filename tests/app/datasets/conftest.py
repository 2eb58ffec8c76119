"""The service of tests/app/jobs, for the routes of data sets."""

from tests.app.jobs.conftest import make_service, refusing, roots, service

__all__ = ["make_service", "refusing", "roots", "service"]
