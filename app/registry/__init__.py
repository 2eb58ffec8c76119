"""Versions on disk, and the seam to whoever keeps the aliases: nothing here knows HTTP or SQL."""
