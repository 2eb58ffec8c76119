"""Print the packages and the size of each extra, as they are installed here: `python -m tools.extras`."""

import tomllib
from collections.abc import Iterator
from importlib.metadata import files, requires
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from sds_clip.models.markdown import markdown_table

PROJECT: dict[str, Any] = tomllib.loads(
    (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
)["project"]
EXTRAS = {
    "": "call a service; embed and search by it",
    "serve": "serve without a database; match, classify, embed, search and evaluate here; export",
    "jobs": "`sds-clip up`, a service with a database, workers for evaluation, `backup`, `check`, `prune`",
    "train": "fine-tune, here and by jobs; diffusion scores",
    "postgres": "keep jobs in PostgreSQL",
    "tracing": "send [traces](monitor.md#traces)",
    "tables": "read and write Parquet and Arrow",
    "tensorboard": "`train`, [followed](track.md) in TensorBoard",
    "mlflow": "`train`, [followed](track.md) in MLflow",
    "onnx": "`serve`, and [export](export.md) to ONNX",
    "all": "all of it",
}
"""What each extra is for. The empty name is the package without an extra."""


def main() -> None:
    rows = [[_shown(extra), *_size(packages(extra)), purpose] for extra, purpose in EXTRAS.items()]
    print(markdown_table(("Install", "Packages", "MiB", "To"), rows, text=(0, 3)))


def packages(extra: str) -> set[str]:
    """The packages that the project needs with an extra, itself not counted."""
    seen: set[tuple[str, str]] = set()
    waiting = [("sds-clip", ""), ("sds-clip", extra)]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) not in seen:
            seen.add((name, extra))
            for each in _requirements(name, extra):
                waiting += [(canonicalize_name(each.name), one) for one in ("", *each.extras)]
    return {name for name, _ in seen} - {"sds-clip"}


def _requirements(name: str, extra: str) -> Iterator[Requirement]:
    if name == "sds-clip":  # from the sources, which are newer than what is installed
        wanted = PROJECT["optional-dependencies"][extra] if extra else PROJECT["dependencies"]
    else:
        wanted = requires(name) or []
    for requirement in map(Requirement, wanted):
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            yield requirement


def installed_files(name: str) -> list[Path]:
    """Raises importlib.metadata.PackageNotFoundError."""
    found = (Path(str(file.locate())) for file in files(name) or [])
    return [file for file in found if file.is_file()]


def _size(names: set[str]) -> tuple[int, int]:
    size = sum(file.stat().st_size for name in names for file in installed_files(name))
    return len(names), round(size / 2**20)


def _shown(extra: str) -> str:
    return f"`sds-clip[{extra}]`" if extra else "`sds-clip`"


if __name__ == "__main__":
    main()
