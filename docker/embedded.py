"""The entrypoint of the embedded run: makes the API key `admin` at the first start, then runs the command."""

import os
import socket
import sys
from pathlib import Path

from init import make_admin_key

KEY = Path("/data/admin-key")

if __name__ == "__main__":
    make_admin_key(Path(os.environ["SDS_CLIP_KEYS_FILE"]), KEY)
    # Docker names a container by its host name too, unless it was given another.
    os.environ["SDS_CLIP_CONTAINER"] = container = socket.gethostname()
    if KEY.exists():
        show = f"docker exec {container} cat {KEY}"
        print(f"To show the API key `admin`: {show}", flush=True)
        print(f"For the commands below:      export SDS_CLIP_API_KEY=$({show})", flush=True)
    os.execvp(sys.argv[1], sys.argv[1:])
