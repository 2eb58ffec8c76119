"""Print the demo's table of held-out scores: `python -m sds_clip.demo.table`, or `--teacher demo` for the teacher's."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from sds_clip.demo.folders import write_zero_shot
from sds_clip.demo.options import run
from sds_clip.demo.sets import RETRIEVAL_BATCH, classification_set, retrieval_set
from sds_clip.demo.winoground_sets import KINDS
from sds_clip.demo.world import Split
from sds_clip.models.checkpoints.load import load_clip
from sds_clip.models.clip.encode import encode_images, encode_texts
from sds_clip.models.clip.model import Clip
from sds_clip.models.evaluation.benchmark import Benchmark, run_benchmark
from sds_clip.models.evaluation.results import Metric, Results
from sds_clip.models.evaluation.retrieval import in_batch_accuracy
from sds_clip.models.evaluation.scorers import ClipScorer
from sds_clip.models.evaluation.teacher_scorer import TeacherScorer
from sds_clip.models.evaluation.winoground import CHANCE, OUTCOMES, winoground_benchmark
from sds_clip.models.evaluation.zero_shot import zero_shot_benchmark
from sds_clip.models.teacher.load import load_teacher
from sds_clip.models.teacher.teacher import Teacher

DATA = Path(__file__).parent / "data"
DRAWS, DRAW_SEED = 32, 0
WINOGROUND_HEADER = [
    "| Winoground | items | text | image | group | GroupMatch | d' | ties: text | image | group | GroupMatch |",
    f"| --- |{' ---: |' * 10}",
]
CHANCE_ROW = f"| chance | | {' | '.join(f'{share:.1%}' for share in CHANCE.values())} | | | | | |"


def table(clip: Clip, split: Split) -> str:
    """Retrieval, zero-shot and Winoground scores of a model on a part of the demo world, in Markdown."""
    rows = [
        *retrieval_rows(clip, split),
        *zero_shot_rows(clip, split),
        "",
        *winoground_rows(_run(clip, winoground_benchmark(DATA / split))),
    ]
    return "\n".join(rows)


def teacher_table(teacher: Teacher, split: Split, count: int = DRAWS) -> str:
    """Winoground scores by a teacher's velocity error on a part of the demo world, in Markdown.

    A score is d(x, no caption) - d(x, c) over `count` noise levels, the same for all captions and images.
    """
    with TemporaryDirectory() as folder:
        scorer = TeacherScorer(teacher, Path(folder), count=count, seed=DRAW_SEED, error_of="velocity")
        results = run_benchmark(winoground_benchmark(DATA / split), scorer)
    return "\n".join(winoground_rows(results))


def retrieval_rows(clip: Clip, split: Split) -> list[str]:
    """In-batch retrieval of the part's 512 pairs."""
    pairs = retrieval_set(split)
    images = encode_images(clip, [Image.fromarray(pixels) for pixels in pairs.images])
    accuracy = in_batch_accuracy(images, encode_texts(clip, pairs.captions), batch_size=RETRIEVAL_BATCH)
    return [
        f"| retrieval, batches of {RETRIEVAL_BATCH} | recall@1 |",
        "| --- | ---: |",
        f"| image to text | {accuracy.image_to_text:.1%} |",
        f"| text to image | {accuracy.text_to_image:.1%} |",
    ]


def zero_shot_rows(clip: Clip, split: Split) -> list[str]:
    """Naming colour and shape of single objects whose combination was not in the training set."""
    examples = classification_set(split)
    with TemporaryDirectory() as folder:
        write_zero_shot(Path(folder), examples)
        metrics = _run(clip, zero_shot_benchmark(Path(folder))).metrics
    return [
        "",
        f"| zero-shot, {len(examples.labels)} classes | accuracy |",
        "| --- | ---: |",
        f"| top 1 | {metrics['acc1'].value:.1%} |",
        f"| top 5 | {metrics['acc5'].value:.1%} |",
        f"| mean per class | {metrics['mean_per_class_recall'].value:.1%} |",
    ]


def winoground_rows(results: Results) -> list[str]:
    """The Winoground table: all items, each kind, and chance."""
    of = {"all": results.metrics} | {kind: results.by_tag[kind] for kind in KINDS}
    return [*WINOGROUND_HEADER, *(_winoground_row(name, metrics) for name, metrics in of.items()), CHANCE_ROW]


def _winoground_row(name: str, of: Mapping[str, Metric]) -> str:
    metrics = [of[metric] for metric in OUTCOMES]
    d_prime = "" if metrics[-1].d_prime is None else f"{metrics[-1].d_prime:.2f}"
    shares = (f"{metric.value:.1%}" for metric in metrics)
    cells = [name, metrics[0].n, *shares, d_prime, *(metric.ties for metric in metrics)]
    return f"| {' | '.join(map(str, cells))} |"


def _run(clip: Clip, benchmark: Benchmark) -> Results:
    with TemporaryDirectory() as folder, ClipScorer(clip, Path(folder)) as scorer:
        return run_benchmark(benchmark, scorer)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="demo", help="Reference of the model.")
    parser.add_argument(
        "--teacher", help="Reference of a teacher, whose scores are printed instead of the model's."
    )
    parser.add_argument(
        "--split",
        type=Split,
        choices=(Split.HELD_OUT, Split.VALIDATION),
        default=Split.HELD_OUT,
        help="The part to measure on.",
    )
    options = parser.parse_args()
    if options.teacher:
        teacher = load_teacher(options.teacher, device="cpu", precision="float32", vae=True)
        print(teacher_table(teacher, options.split))
    else:
        print(table(load_clip(options.model, device="cpu", precision="float32"), options.split))


if __name__ == "__main__":
    run(main)
