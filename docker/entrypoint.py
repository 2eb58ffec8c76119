"""The containers' entrypoint: inserts secrets into the URLs, then runs the command.

In `postgresql://sds_clip:{/secrets/postgres/password}@postgres/sds_clip` the braces are replaced by the
file's content, so that `docker inspect` shows no password. A URL without braces stays as it is.
"""

import os
import re
import sys
from pathlib import Path
from typing import NoReturn

URLS = ("SDS_CLIP_DATABASE_URL", "SDS_CLIP_BROKER_URL")


def filled(url: str) -> str:
    """Replace every file named in braces by its content. Raises OSError."""
    return re.sub(r"\{(/[^{}]+)\}", lambda file: Path(file[1]).read_text(encoding="ascii").strip(), url)


def main(command: list[str]) -> NoReturn:
    """Replace this process by the command, so that signals reach it."""
    try:
        for name in URLS:
            if name in os.environ:
                os.environ[name] = filled(os.environ[name])
    except OSError as error:
        sys.exit(f"{error.filename} cannot be read ({error.strerror}); the service `init` makes it.")
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.exit(f"{command[0]} cannot be run: {error.strerror}.")


if __name__ == "__main__":
    main(sys.argv[1:])
