"""Checks of data sets are jobs. The tables stay; the number says which programs know such jobs."""

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    """Change nothing."""
