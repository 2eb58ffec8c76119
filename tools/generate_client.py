"""Generates the blocking client, sds_clip/client/_sync, from the awaited one, sds_clip/client/_async.

It also generates the types of both, sds_clip/client/schemas.py, from the service's schemas (client_schemas.py).
`python -m tools.generate_client` writes them. With `--check` nothing is written, and the exit status is 1 if a file is
out of date.
"""

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import unasync

from sds_clip.app.main import api
from tools import client_schemas

ROOT = Path(__file__).parents[1]
CLIENT = ROOT / "sds_clip" / "client"
SOURCE, SCHEMAS = CLIENT / "_async", CLIENT / "schemas.py"
CONFIG = ("--config", "pyproject.toml", "--config", 'lint.isort.known-first-party=["sds_clip"]')
HEADER = "# Generated from _async by `make client`. Edit that instead.\n"
# On top of what unasync replaces itself: `async`, `await`, AsyncIterator, __aenter__ and others.
NAMES = {
    "_async": "_sync",
    "AsyncClient": "Client",
    "AsyncHttp": "Http",
    "AsyncJob": "Job",
    "aclose": "close",
    "aread": "read",
    "aiter_bytes": "iter_bytes",
    "aiter_lines": "iter_lines",
    "aiter_sse": "iter_sse",
    "async_sleep": "sleep",
    "in_thread": "at_once",
    "each_in_thread": "each_at_once",
}


def generate() -> dict[Path, str]:
    """The generated files."""
    return _blocking() | {SCHEMAS: client_schemas.write(api().openapi(), _named_schemas())}


def _named_schemas() -> set[str]:
    """The schemas that the awaited client names, as `schemas.MatchResponse`."""
    return {
        name for file in SOURCE.glob("*.py") for name in re.findall(r"\bschemas\.(\w+)", file.read_text())
    }


def _blocking() -> dict[Path, str]:
    with TemporaryDirectory() as temporary:
        source, target = Path(temporary) / "_async", Path(temporary) / "_sync"
        shutil.copytree(SOURCE, source, ignore=shutil.ignore_patterns("__pycache__"))
        rule = unasync.Rule("/_async/", "/_sync/", NAMES)
        unasync.unasync_files([str(file) for file in source.glob("*.py")], [rule])
        # Without `await` a call may fit on one line, and without `Async` a name may sort elsewhere.
        for command in (["check", "--fix", "--select", "I"], ["format"]):
            options = ["--quiet", "--no-cache", *CONFIG, str(target)]
            subprocess.run([sys.executable, "-m", "ruff", *command, *options], cwd=ROOT, check=True)
        return {CLIENT / "_sync" / file.name: HEADER + file.read_text() for file in target.glob("*.py")}


def out_of_date(generated: dict[Path, str]) -> list[Path]:
    """The files that differ from the generated ones, or exist on one side only."""
    found = {file: file.read_text() for file in (*CLIENT.glob("_sync/*.py"), SCHEMAS) if file.exists()}
    return sorted(file for file in generated | found if generated.get(file) != found.get(file))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.generate_client", description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="write nothing, and fail where a file is out of date"
    )
    check = parser.parse_args().check
    generated = generate()
    stale = out_of_date(generated)
    if check and stale:
        names = ", ".join(str(file.relative_to(ROOT)) for file in stale)
        print(f"Out of date: {names}. Run `make client`.", file=sys.stderr)
        return 1
    for file in stale:
        file.parent.mkdir(exist_ok=True)
        file.write_text(generated[file]) if file in generated else file.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
