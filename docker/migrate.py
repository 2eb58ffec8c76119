"""Migrates the database before anything uses it."""

import os
import sys

from sds_clip.app.errors import ConfigurationError, StoreUnavailable
from sds_clip.app.store import Store

if __name__ == "__main__":
    try:
        Store(os.environ["SDS_CLIP_DATABASE_URL"]).migrate()
    except (ConfigurationError, StoreUnavailable) as error:
        sys.exit(str(error))
