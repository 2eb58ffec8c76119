"""Creates the services' shared secrets: `python init.py /secrets`.

    postgres_password    read by PostgreSQL, and inserted into the services' URL by entrypoint.py
    redis_password       the same for Redis
    redis.conf           the same password as a Redis configuration
    keys.json            the hash of the API key `admin`; the key itself is printed only once

Existing files are kept, so it can run before every start.
"""

import os
import secrets
import sys
from pathlib import Path

from app.keys import SCOPES, create_key

READABLE_BY_GROUP = 0o640  # Redis runs as another user in our group


def main(folder: Path) -> None:
    """Create what is missing. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    once(folder / "postgres_password", secrets.token_hex(32))
    redis_password = once(folder / "redis_password", secrets.token_hex(32))
    once(folder / "redis.conf", f"requirepass {redis_password}\n")
    keys_file = folder / "keys.json"
    if not keys_file.exists():
        key = create_key(keys_file, "admin", SCOPES)
        print(f"The API key `admin`, which is shown only now:\n{key}", flush=True)


def once(file: Path, content: str) -> str:
    """Write `content` atomically unless the file exists; returns what the file holds."""
    if not file.exists():
        temporary = file.with_name(f".{file.name}")
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, READABLE_BY_GROUP)
        with os.fdopen(descriptor, "w", encoding="ascii") as stream:
            os.fchmod(descriptor, READABLE_BY_GROUP)
            stream.write(content)
            stream.flush()
            os.fsync(descriptor)
        temporary.replace(file)
    return file.read_text(encoding="ascii")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
