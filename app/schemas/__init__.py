"""Request and response bodies, a file an endpoint."""
