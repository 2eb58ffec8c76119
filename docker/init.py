"""Creates the services' secrets, each in a volume of its own, so that a service mounts only those that it needs.

    postgres/password    read by PostgreSQL, and inserted into the services' URL by entrypoint.py
    redis/password       the same for Redis
    redis/redis.conf     the same password as a Redis configuration
    keys/keys.json       the hash of the API key `admin`; the key itself is printed only once

Existing files are kept, so it can run before every start. Files of older releases, which had one volume for all
secrets, are copied from there.
"""

import os
import secrets
import shutil
from pathlib import Path

from app.keys import SCOPES, create_key

SECRETS, FORMER, DATA = Path("/secrets"), Path("/former"), Path("/data")
FORMER_NAMES = {
    "postgres/password": "postgres_password",
    "redis/password": "redis_password",
    "redis/redis.conf": "redis.conf",
    "keys/keys.json": "keys.json",
}
READABLE_BY_GROUP = 0o640  # PostgreSQL and Redis run as another user in our group


def main(folder: Path = SECRETS, former: Path = FORMER, data: Path = DATA) -> None:
    """Create what is missing. Raises OSError."""
    for name, old_name in FORMER_NAMES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if (former / old_name).exists() and not (folder / name).exists():
            shutil.copy2(former / old_name, folder / name)
    once(folder / "postgres/password", secrets.token_hex(32))
    redis_password = once(folder / "redis/password", secrets.token_hex(32))
    once(folder / "redis/redis.conf", f"requirepass {redis_password}\n")
    keys_file = folder / "keys/keys.json"
    if not keys_file.exists():
        key = create_key(keys_file, "admin", SCOPES)
        print(f"The API key `admin`, which is shown only now:\n{key}", flush=True)
    data.chmod(0o700)


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
    main()
