"""Request and response bodies, one file for each endpoint."""
