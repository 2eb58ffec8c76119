"""A server for a folder's versions and aliases: `python -m bench.swap_server MODEL PRECISION DIR PORT`."""

import sys
from functools import partial
from pathlib import Path

from bench.file_aliases import FileAliases
from sds_clip.app.main import run
from sds_clip.app.registry.source import Registry, find_folder
from sds_clip.app.settings import Settings


def main() -> None:
    model, precision, folder, port = sys.argv[1:]
    aliases = FileAliases(Path(folder) / "aliases.json")
    registry = Registry(partial(find_folder, Path(folder) / "versions"), aliases.read)
    run(Settings(port=int(port), models=[model], precision=precision), registry)


if __name__ == "__main__":
    main()
