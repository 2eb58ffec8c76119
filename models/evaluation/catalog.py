"""The benchmarks by name. Imports nothing heavy."""

from dataclasses import dataclass
from typing import Literal

from sds_clip.models.errors import EvaluationError

ScorerName = Literal["clip", "diffusion"]
Option = Literal["images", "classes", "templates", "order_seed"]


@dataclass(frozen=True)
class BenchmarkInfo:
    """A description of a benchmark for a command line or an API."""

    summary: str
    data: str
    """What --data names, as the object of "Read"."""
    scorers: tuple[ScorerName, ...] = ("clip", "diffusion")
    options: tuple[Option, ...] = ("images",)
    is_one_file: bool = False
    """Whether it is read from the one file of captions in a data set's folder, not from the folder."""
    takes_shards: bool = True
    """Whether a data set of it may be shards."""


BENCHMARKS: dict[str, BenchmarkInfo] = {
    "winoground": BenchmarkInfo(
        (
            "Winoground: which of two captions with the same words fits which of two images? Text, image and group "
            "score, and GroupMatch."
        ),
        (
            "this folder, which contains examples.jsonl and images/; the hub id facebook/winoground; or a table "
            "(Parquet, or a folder that Hugging Face's datasets saved)"
        ),
        options=(),
        takes_shards=False,
    ),
    "colorswap": BenchmarkInfo(
        (
            "ColorSwap: which of two captions with swapped colours fits which of two images? Text, image and group "
            "score, and GroupMatch."
        ),
        "this folder, which contains test.json and images/, one of its .json files, or the hub's Parquet file",
        takes_shards=False,
    ),
    "mmvp-vlm": BenchmarkInfo(
        (
            "MMVP-VLM: which of two similar images fits a statement? In nine visual patterns. Image score, and "
            "Winoground's other scores."
        ),
        "this folder, which contains Questions.csv and MLLM_VLM Images/",
        takes_shards=False,
    ),
    "vg-relation": BenchmarkInfo(
        "ARO: does a caption give a relation in the right direction? Mean over the asymmetric relations.",
        "the file visual_genome_relation.json, or the folder that contains it; images/ is beside the file",
    ),
    "vg-attribution": BenchmarkInfo(
        (
            "ARO: which attribute belongs to which object? Mean over pairs of attributes with at least 25 cases."
        ),
        "the file visual_genome_attribution.json, or the folder that contains it; images/ is beside the file",
    ),
    "coco-order": BenchmarkInfo(
        "ARO: is a caption of COCO preferred to four wrong orders of its words?",
        "the file coco_karpathy_test.json, the folder that contains it, or a file of word orders from an earlier run",
        options=("images", "order_seed"),
    ),
    "flickr-order": BenchmarkInfo(
        "ARO: is a caption of Flickr30k preferred to four wrong orders of its words?",
        "the file flickr30k_test.json, the folder that contains it, or a file of word orders from an earlier run",
        options=("images", "order_seed"),
    ),
    "sugarcrepe": BenchmarkInfo(
        "SugarCrepe: is a true caption preferred to a fluent false one? In seven subsets.",
        "this folder, which contains any of the seven .json files and val2017/, or one of the files",
    ),
    "sugarcrepe-pp": BenchmarkInfo(
        "SugarCrepe++: are two true captions both preferred to a false one?",
        "this folder, which contains .json files and val2017/, or one of the files",
    ),
    "sugarcrepe-pp-text": BenchmarkInfo(
        (
            "SugarCrepe++, text only: are the embeddings of two true captions closer to each other than to that of a "
            "false one?"
        ),
        "this folder, which contains .json files, or one of the files",
        scorers=("clip",),
        options=(),
        takes_shards=False,
    ),
    "whats-up": BenchmarkInfo(
        (
            "What'sUp: which of four captions says where an object is? Mean of the photographs A and B; accuracy of "
            "pairs and of sets."
        ),
        (
            "this folder, which contains controlled_images_dataset.json, controlled_clevr_dataset.json and the folders "
            "of their images, or one of the two files"
        ),
        takes_shards=False,
    ),
    "coco-spatial": BenchmarkInfo(
        "What'sUp's COCO-spatial: where is an object? Mean of captions with one object and with two.",
        "this folder, which contains coco_qa_one_obj.json, coco_qa_two_obj.json and val2017/, or one of the two files",
        takes_shards=False,
    ),
    "gqa-spatial": BenchmarkInfo(
        "What'sUp's GQA-spatial: where is an object? Mean of captions with one object and with two.",
        "this folder, which contains vg_qa_one_obj.json, vg_qa_two_obj.json and vg_images/, or one of the two files",
        takes_shards=False,
    ),
    "half-truths": BenchmarkInfo(
        (
            "Half-Truths: is a true caption preferred to itself with a wrong detail? Mean of the three sources; rate "
            "of correct ordering."
        ),
        (
            "this folder, which contains coco_qwen.jsonl, coco_mistral.jsonl, cc3m_qwen.jsonl and their images, or the "
            "hub's Parquet files, or one of the files"
        ),
        takes_shards=False,
    ),
    "zero-shot": BenchmarkInfo(
        "Zero-shot classification by class names: acc1, acc5 and mean_per_class_recall.",
        (
            "this folder, which contains one folder per class, or classnames.txt and test/N.tar; or a table (Parquet, "
            "or a folder that Hugging Face's datasets saved)"
        ),
        scorers=("clip",),
        options=("classes", "templates"),
    ),
    "retrieval": BenchmarkInfo(
        "Text-to-image and image-to-text retrieval: recall@1, recall@5 and recall@10.",
        (
            "this captions file, in COCO's form or as a list of {image, caption: [...]}; a metadata.jsonl or "
            "metadata.csv; or a table (Parquet, or a folder that Hugging Face's datasets saved)"
        ),
        scorers=("clip",),
        is_one_file=True,
    ),
}

ALIASES = {
    "sugar_crepe": "sugarcrepe",
    "sugar-crepe": "sugarcrepe",
    "sugarcrepe_pp": "sugarcrepe-pp",
    "sugarcrepe++": "sugarcrepe-pp",
    "sugarcrepe_pp_text": "sugarcrepe-pp-text",
    "mmvp_vlm": "mmvp-vlm",
    "whatsup": "whats-up",
    "coco_spatial": "coco-spatial",
    "gqa_spatial": "gqa-spatial",
    "half_truths": "half-truths",
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


def resolve(name: str) -> str:
    """Return a benchmark's own name. Raises EvaluationError for a name that is neither its own nor an alias."""
    known = ALIASES.get(name, name)
    if known not in BENCHMARKS:
        raise EvaluationError(f"There is no benchmark {name!r}; choose one of {', '.join(BENCHMARKS)}.")
    return known


def check_scorer(benchmark: str, scorer: str) -> None:
    """Raise EvaluationError if a benchmark cannot be run with a scorer of this name."""
    if scorer not in BENCHMARKS[benchmark].scorers:
        raise EvaluationError(
            f"{benchmark} compares the features of a CLIP, which the scorer {scorer} does not have. Use the scorer "
            "clip, or a benchmark with few captions per image."
        )
