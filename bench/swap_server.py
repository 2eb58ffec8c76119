"""A server over a folder's versions and aliases: `python -m bench.swap_server PORT MODEL PRECISION FOLDER`."""

import sys
from pathlib import Path

from app.main import run
from app.registry.files import FileAliases, FolderVersions
from app.registry.ports import Registry
from app.settings import Settings


def main() -> None:
    port, model, precision, folder = sys.argv[1:]
    registry = Registry(FolderVersions(Path(folder) / "versions"), FileAliases(Path(folder) / "aliases.json"))
    run(Settings(port=int(port), models=[model], precision=precision), registry)


if __name__ == "__main__":
    main()
