"""The command line. Imports lazily; nothing imports it."""
