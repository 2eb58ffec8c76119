"""Read a benchmark by its name and its data."""

from __future__ import annotations

from pathlib import Path

from models.evaluation.aro import vg_attribution, vg_relation
from models.evaluation.benchmark import Benchmark
from models.evaluation.catalog import resolve
from models.evaluation.colorswap import colorswap
from models.evaluation.half_truths import half_truths
from models.evaluation.mmvp import mmvp_vlm
from models.evaluation.order import order_benchmark
from models.evaluation.retrieval import retrieval_benchmark
from models.evaluation.sugarcrepe import sugarcrepe, sugarcrepe_pp, sugarcrepe_pp_text
from models.evaluation.whats_up import coco_spatial, gqa_spatial, whats_up
from models.evaluation.winoground import HUB_ID, download_winoground, winoground_benchmark
from models.evaluation.zero_shot import zero_shot_benchmark


def read_benchmark(
    name: str,
    data: str | Path,
    *,
    work: Path,
    images: Path | None = None,
    classes: str | None = None,
    templates: str | None = None,
    order_seed: int = 0,
) -> Benchmark:
    """Read the data of a benchmark of `catalog.BENCHMARKS` or `catalog.ALIASES`.

    `work` is the folder for what is made from the data, such as order sets.

    Raises:
        EvaluationError or DataError: no such benchmark, or its data has another layout.
    """
    known = resolve(name)
    path = Path(data)
    match known:
        case "winoground":
            if str(data) == HUB_ID and not path.exists():
                path = download_winoground(work / "winoground")
            return winoground_benchmark(path)
        case "colorswap":
            return colorswap(path, images)
        case "mmvp-vlm":
            return mmvp_vlm(path, images)
        case "vg-relation":
            return vg_relation(path, images)
        case "vg-attribution":
            return vg_attribution(path, images)
        case "coco-order" | "flickr-order":
            return order_benchmark(known, path, images, work / "order-sets", seed=order_seed)
        case "sugarcrepe":
            return sugarcrepe(path, images)
        case "sugarcrepe-pp":
            return sugarcrepe_pp(path, images)
        case "sugarcrepe-pp-text":
            return sugarcrepe_pp_text(path)
        case "whats-up":
            return whats_up(path, images)
        case "coco-spatial":
            return coco_spatial(path, images)
        case "gqa-spatial":
            return gqa_spatial(path, images)
        case "half-truths":
            return half_truths(path, images)
        case "zero-shot":
            return zero_shot_benchmark(path, classes=classes, templates=templates)
        case "retrieval":
            return retrieval_benchmark(path, images)
    raise AssertionError(f"{known} has no reader")
