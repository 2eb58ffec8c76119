"""The benchmarks by name. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Option = Literal["images", "classes", "templates", "order_seed"]


@dataclass(frozen=True)
class BenchmarkInfo:
    """A description of a benchmark for a command line or an API."""

    summary: str
    data: str
    scorers: tuple[str, ...] = ("clip", "diffusion")
    options: tuple[Option, ...] = ("images",)


BENCHMARKS: dict[str, BenchmarkInfo] = {
    "winoground": BenchmarkInfo(
        "two images and two captions with the same words: text, image and group score, GroupMatch",
        "folder with examples.jsonl and images/, or the hub id facebook/winoground",
        options=(),
    ),
    "vg-relation": BenchmarkInfo(
        "ARO: the direction of a relation; mean over relations that are not symmetric",
        "visual_genome_relation.json, or its folder, with images/",
    ),
    "vg-attribution": BenchmarkInfo(
        (
            "ARO: which attribute belongs to which object; mean over pairs of attributes with at "
            "least 25 cases"
        ),
        "visual_genome_attribution.json, or its folder, with images/",
    ),
    "coco-order": BenchmarkInfo(
        "ARO: a caption of COCO against four wrong orders of its words",
        "coco_karpathy_test.json, or its folder, or an order set",
        options=("images", "order_seed"),
    ),
    "flickr-order": BenchmarkInfo(
        "ARO: a caption of Flickr30k against four wrong orders of its words",
        "flickr30k_test.json, or its folder, or an order set",
        options=("images", "order_seed"),
    ),
    "sugarcrepe": BenchmarkInfo(
        "a true caption against a fluent false one, in seven files",
        "folder with any of the seven .json files and val2017/, or one of the files",
    ),
    "sugarcrepe-pp": BenchmarkInfo(
        "two true captions against a false one", "folder of .json files with val2017/, or one of the files"
    ),
    "zero-shot": BenchmarkInfo(
        "classification by names: acc1, acc5, mean_per_class_recall",
        "one folder per class, or a folder with classnames.txt and test/N.tar",
        scorers=("clip",),
        options=("classes", "templates"),
    ),
    "retrieval": BenchmarkInfo(
        "recall@1, 5 and 10 of images by text and texts by image",
        "captions file: COCO's, or a list of {image, caption: [...]}",
        scorers=("clip",),
    ),
}

ALIASES = {
    "sugar_crepe": "sugarcrepe",
    "sugar-crepe": "sugarcrepe",
    "sugarcrepe_pp": "sugarcrepe-pp",
    "sugarcrepe++": "sugarcrepe-pp",
    "vg_relation": "vg-relation",
    "vg_attribution": "vg-attribution",
    "coco_order": "coco-order",
    "flickr_order": "flickr-order",
    "flickr30k_order": "flickr-order",
    "zeroshot": "zero-shot",
    "zeroshot_classification": "zero-shot",
    "zeroshot_retrieval": "retrieval",
    "mscoco_captions": "retrieval",
}
"""The names that CLIP_benchmark and the benchmarks' own code use."""
