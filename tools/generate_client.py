"""Generates the blocking client, sds_clip/client/_sync, from the awaited one, sds_clip/client/_async.

`python -m tools.generate_client` writes it. With `--check` nothing is written, and the exit status is 1 if a
file is out of date.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import unasync

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "sds_clip" / "client" / "_async"
TARGET = SOURCE.with_name("_sync")
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


def generate() -> dict[str, str]:
    """The generated files by name."""
    with TemporaryDirectory() as temporary:
        source, target = Path(temporary) / "_async", Path(temporary) / "_sync"
        shutil.copytree(SOURCE, source, ignore=shutil.ignore_patterns("__pycache__"))
        rule = unasync.Rule("/_async/", "/_sync/", NAMES)
        unasync.unasync_files([str(file) for file in source.glob("*.py")], [rule])
        # Without `await` a call may fit on one line, and without `Async` a name may sort elsewhere.
        for command in (["check", "--fix", "--select", "I"], ["format"]):
            options = ["--quiet", "--no-cache", *CONFIG, str(target)]
            subprocess.run([sys.executable, "-m", "ruff", *command, *options], cwd=ROOT, check=True)
        return {file.name: HEADER + file.read_text() for file in target.glob("*.py")}


def out_of_date(generated: dict[str, str]) -> list[str]:
    """Names of files that differ from the generated ones, or exist on one side only."""
    found = {file.name: file.read_text() for file in TARGET.glob("*.py")}
    return sorted(name for name in generated | found if generated.get(name) != found.get(name))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.generate_client", description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="write nothing, and fail where a file is out of date"
    )
    check = parser.parse_args().check
    generated = generate()
    stale = out_of_date(generated)
    if check and stale:
        print(
            f"sds_clip/client/_sync is out of date: {', '.join(stale)}. Run `make client`.", file=sys.stderr
        )
        return 1
    for name in stale:
        file = TARGET / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(generated[name]) if name in generated else file.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
