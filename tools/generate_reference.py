"""Makes the reference from the code.

A hook of MkDocs (`hooks` in mkdocs.yml) adds the pages of settings, command line, HTTP API and client while the site is
built. The page of error codes is a file in git: `python -m tools.generate_reference` writes it. With `--check` nothing
is written, and the exit status is 1 if it is out of date.
"""

import argparse
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from tools.reference import cli, client, errors, routes, settings

PAGES = {"settings": settings.page, "cli": cli.page, "http": routes.page, "client": client.page}
ERRORS = Path(__file__).parents[1] / "docs" / "reference" / "errors.md"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for name, page in PAGES.items():
        files.append(File.generated(config, f"reference/{name}.md", content=page()))
    return files


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.generate_reference", description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="write nothing, and fail where the page is out of date"
    )
    page = errors.page()
    if not parser.parse_args().check:
        ERRORS.write_text(page)
    elif not ERRORS.exists() or ERRORS.read_text() != page:
        print(f"{ERRORS} is out of date. Run `make errors`.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
