"""The service of tests/app/jobs, for the routes of data sets."""

from tests.app.jobs.conftest import keyed, make_keyed, make_service, refusing, roots, service

__all__ = ["keyed", "make_keyed", "make_service", "refusing", "roots", "service"]
