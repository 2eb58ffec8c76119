"""The entrypoint of the embedded run: makes the API key `admin` at the first start, then runs the command."""

import os
import socket
import sys
from pathlib import Path

from init import make_admin_key

KEY = Path("/data/admin-key")

if __name__ == "__main__":
    make_admin_key(Path(os.environ["SDS_CLIP_KEYS_FILE"]), KEY)
    if KEY.exists():
        # Docker names a container by its host name too, unless it was given another.
        print(f"To show the API key `admin`: docker exec {socket.gethostname()} cat {KEY}", flush=True)
    os.execvp(sys.argv[1], sys.argv[1:])
