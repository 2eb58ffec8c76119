"""Print the demo's table of held-out scores: `python -m demo.table`, and `--teacher demo` for the teacher's."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from PIL import Image

from demo.sets import CLASS_TEMPLATES, RETRIEVAL_BATCH, classification_set, retrieval_set
from demo.winoground_sets import KINDS
from demo.world import Split
from models.checkpoints import load_clip
from models.clip import Clip
from models.diffusion_score import DiffusionScorer, draws
from models.evaluation.classification import classification_metrics
from models.evaluation.features import encode_images, encode_texts
from models.evaluation.retrieval import in_batch_accuracy
from models.evaluation.winoground import (
    CHANCE,
    WinogroundMetrics,
    evaluate_winoground,
    metrics_by,
    read_winoground,
    winoground_metrics,
)
from models.teacher.load import load_teacher
from models.teacher.teacher import Teacher
from models.zero_shot import class_weights, prompts

DATA = Path(__file__).parent / "data"
DRAWS, DRAW_SEED = 32, 0
WINOGROUND_HEADER = [
    "| Winoground | items | text | image | group | GroupMatch | d' | ties: text | image | group | GroupMatch |",
    f"| --- |{' ---: |' * 10}",
]
CHANCE_ROW = f"| chance | | {' | '.join(f'{share:.1%}' for share in CHANCE.values())} | | | | | |"


def table(clip: Clip, split: Split) -> str:
    """Retrieval, zero-shot and Winoground scores of a model on a part of the demo world, in Markdown."""
    report = evaluate_winoground(clip, read_winoground(DATA / split))
    rows = [
        *retrieval_rows(clip, split),
        *zero_shot_rows(clip, split),
        "",
        *WINOGROUND_HEADER,
        winoground_row("all", report.overall),
        *(winoground_row(kind, report.by_tag[kind]) for kind in KINDS),
        CHANCE_ROW,
    ]
    return "\n".join(rows)


def teacher_table(teacher: Teacher, split: Split, count: int = DRAWS) -> str:
    """Winoground scores of a teacher's denoising error, the velocity's, on a part of the demo world, in Markdown.

    A score is d(x, no caption) - d(x, c) over `count` noise levels, which all captions and images share.
    """
    items = read_winoground(DATA / split)
    drawn = draws(count, teacher.latent_shape, teacher.timesteps, seed=DRAW_SEED)
    scores = DiffusionScorer(teacher, drawn, error_of="velocity").score_winoground(items).corrected
    by_kind = metrics_by(scores, [item.tag for item in items])
    rows = [
        *WINOGROUND_HEADER,
        winoground_row("all", winoground_metrics(scores)),
        *(winoground_row(kind, by_kind[kind]) for kind in KINDS),
        CHANCE_ROW,
    ]
    return "\n".join(rows)


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
    """Naming colour and shape of single objects whose combination was never trained on alone."""
    examples = classification_set(split)
    images = encode_images(clip, [Image.fromarray(pixels) for pixels in examples.images])
    texts = encode_texts(clip, prompts(examples.labels, CLASS_TEMPLATES))
    weights = class_weights(texts, len(CLASS_TEMPLATES))
    metrics = classification_metrics(clip.logit_scale * images @ weights.T, torch.tensor(examples.targets))
    return [
        "",
        f"| zero-shot, {len(examples.labels)} classes | accuracy |",
        "| --- | ---: |",
        f"| top 1 | {metrics.acc1:.1%} |",
        f"| top 5 | {metrics.acc5:.1%} |",
        f"| mean per class | {metrics.mean_per_class_recall:.1%} |",
    ]


def winoground_row(name: str, metrics: WinogroundMetrics) -> str:
    """One line of the Winoground table."""
    shares = (metrics.text_score, metrics.image_score, metrics.group_score, metrics.group_match)
    ties = (metrics.text_ties, metrics.image_ties, metrics.group_ties, metrics.group_match_ties)
    d_prime = "" if metrics.d_prime is None else f"{metrics.d_prime:.2f}"
    cells = [name, metrics.items, *(f"{share:.1%}" for share in shares), d_prime, *ties]
    return f"| {' | '.join(map(str, cells))} |"


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="demo", help="a model reference")
    parser.add_argument("--teacher", help="a teacher reference: its scores in place of the model's")
    parser.add_argument("--split", type=Split, default=Split.HELD_OUT, help="heldout or validation")
    options = parser.parse_args()
    if options.teacher:
        teacher = load_teacher(options.teacher, device="cpu", precision="float32", vae=True)
        print(teacher_table(teacher, options.split))
    else:
        print(table(load_clip(options.model, device="cpu", precision="float32"), options.split))


if __name__ == "__main__":
    main()
