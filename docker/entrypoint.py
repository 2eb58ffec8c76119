"""What the containers start with: put secrets into the URLs, then become the command.

`postgresql://sds_clip:{/secrets/postgres_password}@postgres/sds_clip` gets the content of that file, so that no
password stands where `docker inspect` shows it. A URL without braces stays as it is.
"""

import os
import re
import sys
from pathlib import Path
from typing import NoReturn

URLS = ("SDS_CLIP_DATABASE_URL", "SDS_CLIP_BROKER_URL")


def filled(url: str) -> str:
    """The URL with the content of every file that it names in braces. Raises OSError."""
    return re.sub(r"\{(/[^{}]+)\}", lambda file: Path(file[1]).read_text(encoding="ascii").strip(), url)


def main(command: list[str]) -> NoReturn:
    """Run the command in this process's place, so that signals reach it."""
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
