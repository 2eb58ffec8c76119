"""Read a benchmark by its name and its data."""

from collections.abc import Callable
from pathlib import Path

from sds_clip.models.evaluation.aro import vg_attribution, vg_relation
from sds_clip.models.evaluation.benchmark import Benchmark
from sds_clip.models.evaluation.catalog import resolve
from sds_clip.models.evaluation.colorswap import colorswap
from sds_clip.models.evaluation.half_truths import half_truths
from sds_clip.models.evaluation.mmvp import mmvp_vlm
from sds_clip.models.evaluation.order import order_benchmark
from sds_clip.models.evaluation.retrieval import retrieval_benchmark
from sds_clip.models.evaluation.sugarcrepe import sugarcrepe, sugarcrepe_pp, sugarcrepe_pp_text
from sds_clip.models.evaluation.whats_up import coco_spatial, gqa_spatial, whats_up
from sds_clip.models.evaluation.winoground import HUB_ID, download_winoground, winoground_benchmark

READERS: dict[str, Callable[[Path, Path | None], Benchmark]] = {
    "colorswap": colorswap,
    "mmvp-vlm": mmvp_vlm,
    "vg-relation": vg_relation,
    "vg-attribution": vg_attribution,
    "sugarcrepe": sugarcrepe,
    "sugarcrepe-pp": sugarcrepe_pp,
    "whats-up": whats_up,
    "coco-spatial": coco_spatial,
    "gqa-spatial": gqa_spatial,
    "half-truths": half_truths,
    "retrieval": retrieval_benchmark,
}
"""The readers of benchmarks whose only option is the folder of images."""


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
    if known in READERS:
        return READERS[known](path, images)
    match known:
        case "winoground":
            if str(data) == HUB_ID and not path.exists():
                path = download_winoground(work / "winoground")
            return winoground_benchmark(path)
        case "coco-order" | "flickr-order":
            return order_benchmark(known, path, images, work / "order-sets", seed=order_seed)
        case "sugarcrepe-pp-text":
            return sugarcrepe_pp_text(path)
        case "zero-shot":
            from sds_clip.models.evaluation.zero_shot import zero_shot_benchmark  # imports open_clip

            return zero_shot_benchmark(path, classes=classes, templates=templates)
    raise AssertionError(f"{known} has no reader")
