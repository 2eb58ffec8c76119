"""Creates the services' secrets, each in a volume of its own, so that a service mounts only those that it needs.

    postgres/password    read by PostgreSQL, and inserted into the services' URL by entrypoint.py
    redis/password       the same for Redis
    redis/redis.conf     the same password as a Redis configuration
    keys/keys.json       the hash of the API key `admin`
    admin/key            the key itself, which no other service mounts

Existing files are kept, so it can run before every start. Files of older releases, which had one volume for all
secrets, are copied from there.
"""

import secrets
import shutil
from pathlib import Path

from sds_clip.app.keys import SCOPES, create_key
from sds_clip.models.atomic import write_atomic

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
    admin_key = folder / "admin/key"
    if make_admin_key(folder / "keys/keys.json", admin_key):
        print(
            f"The API key `admin` is in the file {admin_key}. To show it:\n"
            f"docker compose run --rm --no-deps -T init cat {admin_key}",
            flush=True,
        )
    data.chmod(0o700)


def make_admin_key(keys_file: Path, admin_key: Path) -> bool:
    """Create the API key `admin`, and write it to a file of its own. False if there are keys already."""
    if keys_file.exists():
        return False
    unfinished = keys_file.with_name("unfinished.json")
    unfinished.unlink(missing_ok=True)
    key = create_key(unfinished, "admin", SCOPES)
    admin_key.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(admin_key, f"{key}\n", mode=0o600)
    unfinished.replace(keys_file)  # last, so that no key is in force that stands nowhere
    return True


def once(file: Path, content: str) -> str:
    """Write `content` atomically unless the file exists; returns what the file holds."""
    if not file.exists():
        write_atomic(file, content, mode=READABLE_BY_GROUP)
    return file.read_text(encoding="ascii")


if __name__ == "__main__":
    main()
