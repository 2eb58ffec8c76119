"""Measures how well exports to transformers and ONNX agree with the original: the smallest cosine of each tower.

Each architecture has random weights, and a delta of its LayerNorms. The embeddings of pictures and texts are computed
in float32 by this project, and from the exported folder by transformers or onnxruntime alone.
"""

import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.options import option, parse
from models.checkpoints import load_clip
from models.export import export_full
from models.markdown import markdown_table
from tests.deltas import save_tuned
from tests.exports import ARCHITECTURES, BY, by_ours, cosines, save_random


@dataclass(frozen=True)
class Plan:
    """What is measured."""

    architectures: Sequence[str] = option(
        ARCHITECTURES, "Names of open_clip's architectures.", quick=ARCHITECTURES[:1], kind=str, nargs="+"
    )
    work: Path = option(Path(".cache/bench/exports"), "Folder for checkpoints, which are removed again.")


def rows(architecture: str, work: Path) -> Iterator[tuple[str, ...]]:
    base = save_random(architecture, work / "base")
    delta = save_tuned(work / "delta", load_clip(str(base), device="cpu", precision="float32"))
    for name, reference in (("random weights", base), ("LayerNorm delta", delta)):
        ours = by_ours(str(reference))
        for format, embed in BY.items():
            exported = export_full(str(reference), work / "exported", format=format)
            yield architecture, name, format, *(f"{cosine:.9f}" for cosine in cosines(ours, embed(exported)))
            shutil.rmtree(exported)


def main(arguments: Sequence[str] | None = None) -> None:
    plan = parse(Plan, "bench.exports", __doc__, arguments)
    found = []
    for architecture in plan.architectures:
        shutil.rmtree(plan.work, ignore_errors=True)
        for row in rows(architecture, plan.work):
            found.append(row)
            print(*row, file=sys.stderr, flush=True)
    shutil.rmtree(plan.work, ignore_errors=True)
    header = ("architecture", "checkpoint", "format", "images", "texts")
    print(markdown_table(header, found, text=(0, 1, 2)))


if __name__ == "__main__":
    main()
