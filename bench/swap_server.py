"""A server for a folder's versions and aliases: `python -m bench.swap_server MODEL PRECISION DIR PORT`."""

import sys
from functools import partial
from pathlib import Path

from app.main import run
from app.registry.source import Registry, find_folder
from app.settings import Settings
from bench.file_aliases import FileAliases


def main() -> None:
    model, precision, folder, port = sys.argv[1:]
    aliases = FileAliases(Path(folder) / "aliases.json")
    registry = Registry(partial(find_folder, Path(folder) / "versions"), aliases.read)
    run(Settings(port=int(port), models=[model], precision=precision), registry)


if __name__ == "__main__":
    main()
