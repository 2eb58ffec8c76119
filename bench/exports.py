"""Measures how well exports agree with the original: the smallest cosine of each tower.

Each architecture has random weights, and a delta of its LayerNorms. The embeddings of 40 pictures in all modes and of
texts are computed in float32 by this project, and from the exported folder by the lines of its model card.
"""

import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from bench.options import option, parse
from sds_clip.models.checkpoints import load_clip
from sds_clip.models.choices import ExportFormat
from sds_clip.models.export import export_full
from sds_clip.models.markdown import markdown_table
from sds_clip.models.references import CheckpointError
from tests.deltas import save_tuned
from tests.exports import ARCHITECTURES, by_card, by_ours, cosines, save_random


@dataclass(frozen=True)
class Plan:
    """What is measured."""

    architectures: Sequence[str] = option(
        (*ARCHITECTURES, "RN50"),
        "Names of open_clip's architectures.",
        quick=ARCHITECTURES[:1],
        kind=str,
        nargs="+",
    )
    work: Path = option(Path(".cache/bench/exports"), "Folder for checkpoints, which are removed again.")


def rows(architecture: str, work: Path) -> Iterator[tuple[str, ...]]:
    base = save_random(architecture, work / "base")
    delta = save_tuned(work / "delta", load_clip(str(base), device="cpu", precision="float32"))
    for name, reference in (("random weights", base), ("LayerNorm delta", delta)):
        ours = by_ours(str(reference))
        for format in get_args(ExportFormat):
            try:
                exported = export_full(str(reference), work / "exported", format=format)
            except CheckpointError:
                yield architecture, name, format, "refused", "refused"
                continue
            found = cosines(ours, by_card(exported))
            yield architecture, name, format, *(f"{cosine:.9f}" for cosine in found)
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
