"""The entrypoint of the embedded run: makes the API key `admin` at the first start, then runs the command."""

import os
import re
import socket
import sys
from pathlib import Path

from init import make_admin_key

from sds_clip.app.errors import ConfigurationError
from sds_clip.app.keys import KeyRing


def container_of(host: str) -> str:
    """The container's name by its host name, or CONTAINER if --hostname or --network gave it another."""
    return host if re.fullmatch("[0-9a-f]{12}", host) else "CONTAINER"


def is_valid(admin_key: Path, keys_file: Path) -> bool:
    """Whether the key is there and was not deleted meanwhile."""
    try:
        return KeyRing(keys_file).find(admin_key.read_text().strip()) is not None
    except (OSError, ConfigurationError):  # the service itself says what is wrong with its keys
        return False


if __name__ == "__main__":
    keys_file = Path(os.environ["SDS_CLIP_KEYS_FILE"])
    admin_key = keys_file.with_name("admin-key")
    make_admin_key(keys_file, admin_key)
    os.environ["SDS_CLIP_CONTAINER"] = container = container_of(socket.gethostname())
    if is_valid(admin_key, keys_file):
        show = f"docker exec {container} cat {admin_key}"
        print(f"To show the API key `admin`: {show}", flush=True)
        print(f"For the commands below:      export SDS_CLIP_API_KEY=$({show})", flush=True)
    if container == "CONTAINER":
        print("CONTAINER stands for the container's name, which `docker ps` shows.", flush=True)
    os.execvp(sys.argv[1], sys.argv[1:])
