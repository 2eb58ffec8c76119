"""Counts lines, files and settings at two commits: `python -m tools.house BEFORE [AFTER]` prints a table of both."""

import ast
import subprocess
import sys
from pathlib import PurePosixPath

from sds_clip.models.markdown import markdown_table

PARTS = {
    "product": ("app", "worker", "models", "sds_clip", "docker"),
    "bench, tools and demo": ("bench", "tools", "demo"),
    "tests": ("tests",),
}


def counts(commit: str) -> dict[str, int]:
    files = [PurePosixPath(line) for line in _git("ls-tree", "-r", "--name-only", commit).splitlines()]
    lines = {
        f"lines of Python: {name}": sum(
            _git("show", f"{commit}:{file}").count("\n")
            for file in files
            if file.suffix == ".py" and file.parts[0] in folders
        )
        for name, folders in PARTS.items()
    }
    settings = ast.parse(_git("show", f"{commit}:app/settings.py"))
    (fields,) = (node for node in settings.body if isinstance(node, ast.ClassDef) and node.name == "Settings")
    return {
        **lines,
        "tracked files": len(files),
        "settings": sum(isinstance(node, ast.AnnAssign) and node.value is not None for node in fields.body),
        "decisions": sum(file.match("docs/decisions/*.md") for file in files),
    }


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout


def main() -> None:
    before, after = counts(sys.argv[1]), counts((sys.argv[2:] or ["HEAD"])[0])
    rows = [
        [name, f"{count:,}", f"{after[name]:,}", f"{after[name] - count:+,}"]
        for name, count in before.items()
    ]
    print(markdown_table(("", "before", "after", "difference"), rows))


if __name__ == "__main__":
    main()
