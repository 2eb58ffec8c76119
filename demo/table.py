"""Print the demo's table of held-out scores: `python -m sds_clip.demo.table`, or `--teacher demo` for the teacher's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from sds_clip.demo.folders import write_zero_shot
from sds_clip.demo.measure import retrieval
from sds_clip.demo.options import add_split, parser_of, run
from sds_clip.demo.sets import RETRIEVAL_BATCH, classification_set
from sds_clip.demo.winoground_sets import KINDS
from sds_clip.demo.world import Split
from sds_clip.models.checkpoints.load import load_clip
from sds_clip.models.clip.model import Clip
from sds_clip.models.evaluation.benchmark import Benchmark, run_benchmark
from sds_clip.models.evaluation.results import Metric, Results
from sds_clip.models.evaluation.scorers import ClipScorer
from sds_clip.models.evaluation.teacher_scorer import TeacherScorer
from sds_clip.models.evaluation.winoground import CHANCE, OUTCOMES, winoground_benchmark
from sds_clip.models.evaluation.zero_shot import zero_shot_benchmark
from sds_clip.models.markdown import markdown_table
from sds_clip.models.teacher.load import load_teacher
from sds_clip.models.teacher.teacher import Teacher

DATA = Path(__file__).parent / "data"
DRAWS, DRAW_SEED = 32, 0
WINOGROUND_HEADER = (
    "Winoground", "items", "text", "image", "group", "GroupMatch", "d'", "ties: text", "image", "group", "GroupMatch",
)  # fmt: skip


def table(clip: Clip, split: Split) -> str:
    """Retrieval, zero-shot and Winoground scores of a model on a part of the demo world, in Markdown."""
    found = _run(clip, winoground_benchmark(DATA / split))
    return "\n\n".join([_retrieval(clip, split), _zero_shot(clip, split), _winoground(found)])


def teacher_table(teacher: Teacher, split: Split, count: int = DRAWS) -> str:
    """Winoground scores by a teacher's velocity error on a part of the demo world, in Markdown.

    A score is d(x, no caption) - d(x, c) over `count` noise levels, the same for all captions and images.
    """
    with TemporaryDirectory() as folder:
        scorer = TeacherScorer(teacher, Path(folder), count=count, seed=DRAW_SEED, error_of="velocity")
        return _winoground(run_benchmark(winoground_benchmark(DATA / split), scorer))


def _retrieval(clip: Clip, split: Split) -> str:
    found = retrieval(clip, split)
    shares = {"image to text": found.image_to_text, "text to image": found.text_to_image}
    return _shares(f"retrieval, batches of {RETRIEVAL_BATCH}", "recall@1", shares)


def _zero_shot(clip: Clip, split: Split) -> str:
    """Naming colour and shape of single objects whose combination was not in the training set."""
    examples = classification_set(split)
    with TemporaryDirectory() as folder:
        write_zero_shot(Path(folder), examples)
        metrics = _run(clip, zero_shot_benchmark(Path(folder))).metrics
    names = {"top 1": "acc1", "top 5": "acc5", "mean per class": "mean_per_class_recall"}
    shares = {name: metrics[metric].value for name, metric in names.items()}
    return _shares(f"zero-shot, {len(examples.labels)} classes", "accuracy", shares)


def _shares(name: str, metric: str, shares: Mapping[str, float]) -> str:
    return markdown_table((name, metric), [(row, f"{share:.1%}") for row, share in shares.items()])


def _winoground(results: Results) -> str:
    """All items, each kind, and chance."""
    of = {"all": results.metrics} | {kind: results.by_tag[kind] for kind in KINDS}
    rows = [_winoground_row(name, metrics) for name, metrics in of.items()]
    chance = ["chance", "", *(f"{share:.1%}" for share in CHANCE.values()), *[""] * 5]
    return markdown_table(WINOGROUND_HEADER, [*rows, chance])


def _winoground_row(name: str, of: Mapping[str, Metric]) -> list[object]:
    metrics = [of[metric] for metric in OUTCOMES]
    d_prime = "" if metrics[-1].d_prime is None else f"{metrics[-1].d_prime:.2f}"
    shares = (f"{metric.value:.1%}" for metric in metrics)
    return [name, metrics[0].n, *shares, d_prime, *(metric.ties for metric in metrics)]


def _run(clip: Clip, benchmark: Benchmark) -> Results:
    with TemporaryDirectory() as folder, ClipScorer(clip, Path(folder)) as scorer:
        return run_benchmark(benchmark, scorer)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--model", default="demo", help="Reference of the model.")
    parser.add_argument(
        "--teacher", help="Reference of a teacher, whose scores are printed instead of the model's."
    )
    add_split(parser, Split.HELD_OUT)
    options = parser.parse_args()
    if options.teacher:
        teacher = load_teacher(options.teacher, device="cpu", precision="float32", vae=True)
        print(teacher_table(teacher, options.split))
    else:
        print(table(load_clip(options.model, device="cpu", precision="float32"), options.split))


if __name__ == "__main__":
    run(main)
