"""`sds-clip reproduce` trains SDS-CLIP and its control, measures both beside the base, and writes one page."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sds_clip.commands.evaluate import check_reference, make_evaluator
from sds_clip.commands.finetune import train_and_show
from sds_clip.commands.reproduce_options import DEFAULTS, IMAGES, TRAIN, VALIDATION, reproduction_of
from sds_clip.models.evaluation.catalog import BENCHMARKS
from sds_clip.options import (
    command,
    compute_option,
    file_option,
    folder_option,
    number_option,
    option,
    share_option,
    together,
)
from sds_clip.signals import stopped_in_time
from sds_clip.table import printable_lines, say, table

if TYPE_CHECKING:
    from sds_clip.models.clip.model import Clip
    from sds_clip.models.evaluation.benchmark import Benchmark
    from sds_clip.models.reproduction import Reproduction
    from sds_clip.models.training.processes import Rank

_BENCHMARKS = "Benchmarks"
_RUNS = "Runs"

_run_number = [
    number_option(f"--{name.replace('_', '-')}", section=_RUNS, help=f"{text} (default: {DEFAULTS[name]}).")
    for name, text in (
        ("steps", "Take this many steps in each run"),
        ("batch_size", "Train on this many pairs in each step"),
        ("micro_batch_size", "Encode at most this many pairs at once"),
        ("sds_batch_size", "Show the teacher this many pairs of each batch"),
        ("workers", "Decode images in this many threads"),
    )
]
_benchmarks = [
    option(f"--{name}", section=_BENCHMARKS, metavar="PATH", help=f"{about.summary} Read {about.data}.")
    for name, about in BENCHMARKS.items()
    if name != "retrieval"
]


@command(
    extra="train",
    references=True,
    examples="""\
sds-clip reproduce --base ViT-B-16/openai --teacher teachers/sd15 --coco coco --winoground winoground \\
    --sugarcrepe sugarcrepe --out runs/b16 --dry-run
sds-clip reproduce --base ViT-B-16/openai --teacher teachers/sd15 --coco coco --winoground winoground \\
    --sugarcrepe sugarcrepe --seeds 0,1,2 --also negclip=local-dir:negclip --out runs/b16
""",
)
@option("--base", required=True, metavar="REF", help="Fine-tune this model.")
@option(
    "--teacher",
    required=True,
    metavar="REF",
    help="Distil this teacher: a diffusers folder, a hub id or `demo`.",
)
@folder_option(
    "--coco",
    required=True,
    help=f"Train on the COCO captions of this folder, which contains {TRAIN}, {VALIDATION} and {IMAGES}/. Retrieval "
    "is measured on those for validation.",
)
@folder_option("--out", required=True, help="Write everything to this folder, which is created if needed.")
@option("--dry-run", is_flag=True, help="Check the input, estimate time, memory and disk, and write nothing.")
@option(
    "--also",
    multiple=True,
    metavar="NAME=REF",
    help="Measure this model too, under this name. Repeat the option for several.",
)
@together(*_benchmarks)
@option(
    "--classes",
    section=_BENCHMARKS,
    metavar="SET",
    help="Use these class names for --zero-shot: imagenet, or a .txt or .json file.",
)
@option(
    "--templates",
    section=_BENCHMARKS,
    metavar="SET",
    help="Use these templates for --zero-shot: photo, simple, openai, or a .txt or .json file.",
)
@option(
    "--seeds",
    section=_RUNS,
    multiple=True,
    default=["0"],
    metavar="N,N",
    help="Train SDS-CLIP and its control with each of these seeds. They may be repeated or separated by commas.",
)
@option(
    "--lambda",
    "sds_weight",
    section=_RUNS,
    type=float,
    metavar="NUMBER",
    help=f"Multiply L_SDS by this number (default: {DEFAULTS['sds_weight']}).",
)
@together(*_run_number)
@share_option(
    "--max-bad-share",
    section=_RUNS,
    help="Leave out pairs and items with missing or damaged images, up to this share of each set (default: 0).",
)
@file_option(
    "--config",
    section=_RUNS,
    help="Read further options of the runs from this YAML file, by the names of `sds-clip finetune`.",
)
@compute_option(
    "--device", default="auto", metavar="DEVICE", help="Compute on this device: auto, cpu, cuda or cuda:N."
)
@stopped_in_time()
def reproduce(dry_run: bool, **given: Any) -> int:
    """Train SDS-CLIP and its control on real weights, and compare them on one page.

    The command evaluates the base, trains the control (L_CLIP alone) and SDS-CLIP on the same data in the same order,
    says whether the teacher had a say, evaluates every model on every benchmark that is given, and compares SDS-CLIP
    with its control by paired tests.

    The folder --out receives report.md (one page), table.tsv (every figure), the runs and the evaluations. If the
    command was killed, the same command continues it. More seeds, benchmarks and models may be added later.
    """
    from sds_clip.models.reproduction import continued
    from sds_clip.models.training.processes import find_rank

    rank = find_rank(given["device"])
    if rank.world_size > 1:
        raise click.UsageError("`sds-clip reproduce` runs in one process. Start it without a launcher.")
    work = continued(reproduction_of(rank, **given))
    base, benchmarks = _checked(work)
    if dry_run:
        from sds_clip.commands.reproduce_estimate import estimate

        print(printable_lines(estimate(work, base, benchmarks, rank.device)))
        return 0
    return _run(work, rank)


def _run(work: Reproduction, rank: Rank) -> int:
    from sds_clip.models.reproduction import BASE, begin
    from sds_clip.models.reproduction import table as figures
    from sds_clip.models.reproduction_page import shown, write_page

    begin(work)
    # Before hours of training, since benchmarks may have damaged images, and models damaged weights.
    _measure(work, rank, [BASE, *work.also])
    if code := _train(work, rank):
        return code
    _measure(work, rank, list(work.measured()))
    page = write_page(work)
    print(table(*shown(work, figures(work))))
    print(f"\n{page}")
    say(f"Wrote {page} and {page.with_name('table.tsv')}.")
    return 0


def _train(work: Reproduction, rank: Rank) -> int:
    """Train what is not trained yet. Return 0, or the exit code of a run that was stopped."""
    import torch

    from sds_clip.models.reproduction import CONTROL, check_alike, say_of_teacher
    from sds_clip.models.training.parts import load_parts

    parts = None
    for seed in work.seeds:
        for name, config in work.runs(seed).items():
            if work.delta(name).exists():
                continue
            parts = parts or load_parts(work.config, rank, say)
            own = replace(parts, teacher=None) if config.objective == "clip" else parts
            say(f"training {name}")
            if rank.device.type == "cuda":  # the peak in the log is then that of this run
                torch.cuda.reset_peak_memory_stats(rank.device)
            control = None if config.objective == "clip" else work.run_folder(f"{CONTROL}-{seed}")
            stopped = f"{name} stopped after step {{}}. The same command continues it."
            result, code = train_and_show(
                config, own, work.run_folder(name), rank, stopped, control=control, resume=True
            )
            if result.delta is None:
                return code
        check_alike(work, seed)
        say(f"seed {seed}: {say_of_teacher(work, seed)}")
    return 0


def _measure(work: Reproduction, rank: Rank, models: Sequence[str]) -> None:
    from sds_clip.models.reproduction import measure

    evaluator = make_evaluator(work.out / "cache", str(rank.device))
    # A model and its control are on all benchmarks one after another.
    evaluator = replace(evaluator, load_clip=lru_cache(maxsize=2)(evaluator.load_clip))
    for model in models:
        for found in measure(work, evaluator, model):
            results = found.results
            value = results.metrics[results.primary].value
            say(f"{model} on {results.benchmark}: {results.primary} {value:.2%}")


def _checked(work: Reproduction) -> tuple[Clip, list[Benchmark]]:
    """Find what cannot be used before anything is written, and return the base and the benchmarks."""
    from sds_clip.models.checkpoints.load import load_clip
    from sds_clip.models.data.batches import steps_per_epoch
    from sds_clip.models.data.open import open_pairs
    from sds_clip.models.evaluation.items import read_bytes
    from sds_clip.models.evaluation.readers import read_benchmark
    from sds_clip.models.evaluation.winoground import HUB_ID
    from sds_clip.models.reproduction import check_kept
    from sds_clip.models.teacher.load import load_teacher
    from sds_clip.models.training.parts import with_negatives

    for reference in (work.config.base, *work.also.values()):
        check_reference(reference)
    base = load_clip(work.config.base, device="cpu", precision="float32")
    assert work.config.teacher is not None
    load_teacher(work.config.teacher, device="cpu", precision="bfloat16", vae=work.config.needs_vae)
    data, validation = (
        open_pairs(file, images=work.config.images) for file in (work.config.data, work.config.val) if file
    )
    steps_per_epoch(len(data), work.config.batch_size)  # refuses a batch larger than the data
    with_negatives(work.config, data)  # refuses data without those that the options ask for
    for pairs in (data, validation):
        pairs.image(0)
    with tempfile.TemporaryDirectory(prefix="sds-clip-reproduce-") as made:
        benchmarks = {
            asked: read_benchmark(
                asked.benchmark,
                asked.data,
                work=Path(made),
                images=asked.images,
                classes=asked.classes,
                templates=asked.templates,
            )
            for asked in work.benchmarks
            if asked.data != HUB_ID
        }
        check_kept(work, base, benchmarks)
        for benchmark in benchmarks.values():  # the evaluation of the base reads them all
            for image in benchmark.items[0].images:
                read_bytes(image)
    return base, [*benchmarks.values()]
