"""Checks that a worker can work: database and broker answer, and its folder is writable.

There is no check that the worker itself lives: its container ends with it.
"""

import os
import sys

import redis
from sqlalchemy import text

from sds_clip.app.errors import StoreUnavailable
from sds_clip.app.store.database import Database

TIMEOUT_S = 4.0


def main() -> str | None:
    """Return what is wrong, or None."""
    try:
        database = Database(os.environ["SDS_CLIP_DATABASE_URL"], timeout_s=TIMEOUT_S)
        with database.reading() as connection:
            connection.execute(text("SELECT 1"))
    except StoreUnavailable:
        return "the database does not answer"
    try:
        redis.Redis.from_url(
            os.environ["SDS_CLIP_BROKER_URL"], socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S
        ).ping()
    except redis.RedisError as error:
        return f"the broker does not answer: {error}"
    folder = os.environ["SDS_CLIP_DATA_DIR"]
    return None if os.access(folder, os.W_OK) else f"{folder} cannot be written"


if __name__ == "__main__":
    sys.exit(main())
