"""Migrates the database before anything uses it."""

import os
import sys

from app.errors import ConfigurationError
from app.store import Store
from app.store.errors import StoreUnavailable

if __name__ == "__main__":
    try:
        Store(os.environ["SDS_CLIP_DATABASE_URL"]).migrate()
    except (ConfigurationError, StoreUnavailable) as error:
        sys.exit(str(error))
