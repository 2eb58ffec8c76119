"""The command line and the Python client. Imports lazily; nothing imports it."""
