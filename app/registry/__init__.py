"""Versions on disk, and the interface to the source of the aliases."""
