"""`sds-clip reproduce` trains SDS-CLIP and its control, measures both beside the base, and writes one page."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from models.errors import ConfigError, DataError
from models.evaluation.catalog import BENCHMARKS
from models.evaluation.request import EvaluationRequest
from sds_clip.commands.evaluate import check_reference, make_evaluator
from sds_clip.commands.finetune import read_config, read_options, train_and_show
from sds_clip.options import (
    Command,
    compute_option,
    file_option,
    folder_option,
    number_option,
    option,
    together,
)
from sds_clip.table import printable_lines, say, table

if TYPE_CHECKING:
    from models.evaluation.benchmark import Benchmark
    from models.reproduction import Reproduction
    from models.training.config import FinetuneConfig
    from models.training.processes import Place

DEFAULTS: dict[str, Any] = {
    "steps": 2000,
    "batch_size": 256,
    "micro_batch_size": 32,
    "sds_batch_size": 16,
    "sds_weight": 1.0,
    "workers": 8,
    "log_every": 50,
}
"""Options of the runs where they differ from those of `sds-clip finetune`; see docs/reproduce.md."""
_OWN = ("base", "teacher", "data", "images", "val", "val_images", "objective", "seed", "caption_cache")
"""Options of a run that this command decides."""
_TRAIN, _VALIDATION, _IMAGES = "captions_train2017.json", "captions_val2017.json", "images"
_ON_VALIDATION_IMAGES = ("sugarcrepe", "sugarcrepe-pp", "coco-spatial")
"""Benchmarks whose images, in val2017, are COCO's."""
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


@click.command(
    cls=Command,
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
    help=f"Train on the COCO captions of this folder, which contains {_TRAIN}, {_VALIDATION} and {_IMAGES}/. Retrieval "
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
@file_option(
    "--config",
    section=_RUNS,
    help="Read further options of the runs from this YAML file, by the names of `sds-clip finetune`.",
)
@compute_option(
    "--device", default="auto", metavar="DEVICE", help="Compute on this device: auto, cpu, cuda or cuda:N."
)
def reproduce(dry_run: bool, **given: Any) -> int:
    """Train SDS-CLIP and its control on real weights, and compare them on one page.

    The command evaluates the base, trains the control (L_CLIP alone) and SDS-CLIP on the same data in the same order,
    says whether the teacher had a say, evaluates every model on every benchmark that is given, and compares SDS-CLIP
    with its control by paired tests.

    The folder --out receives report.md (one page), table.tsv (every figure), the runs and the evaluations. If the
    command was killed, the same command continues it. More seeds, benchmarks and models may be added later.
    """
    from models.training.processes import find_place

    place = find_place(given["device"])
    if place.world_size > 1:
        raise click.UsageError("`sds-clip reproduce` runs in one process. Start it without a launcher.")
    work = _reproduction(place, **given)
    benchmarks = _checked(work)
    if dry_run:
        from sds_clip.commands.reproduce_estimate import estimate

        print(printable_lines(estimate(work, benchmarks, place.device)))
        return 0
    return _run(work, place)


def _run(work: Reproduction, place: Place) -> int:
    from models.reproduction import BASE, begin, shown, write_page
    from models.reproduction import table as figures

    begin(work)
    _measure(work, place, [BASE])  # before hours of training, since benchmarks may have damaged images
    if code := _train(work, place):
        return code
    _measure(work, place, list(work.measured()))
    page = write_page(work)
    print(table(*shown(work, figures(work))))
    print(f"\n{page}")
    say(f"Wrote {page} and {page.with_name('table.tsv')}.")
    return 0


def _train(work: Reproduction, place: Place) -> int:
    """Train what is not trained yet. Return 0, or the exit code of a run that was stopped."""
    import torch

    from models.reproduction import check_alike, say_of_teacher
    from models.training.parts import load_parts

    parts = None
    for seed in work.seeds:
        for name, config in work.runs(seed).items():
            if work.delta(name).exists():
                continue
            parts = parts or load_parts(work.config, place, say)
            own = replace(parts, teacher=None) if config.objective == "clip" else parts
            say(f"training {name}")
            if place.device.type == "cuda":  # the peak in the log is then that of this run
                torch.cuda.reset_peak_memory_stats(place.device)
            result, code = train_and_show(config, own, work.run_folder(name), place, resume=True)
            if result.delta is None:
                say(f"{name} stopped after step {result.steps_done}. The same command continues it.")
                return code
        check_alike(work, seed)
        say(f"seed {seed}: {say_of_teacher(work, seed)}")
    return 0


def _measure(work: Reproduction, place: Place, models: Sequence[str]) -> None:
    from models.reproduction import measure

    evaluator = make_evaluator(work.out / "cache", str(place.device))
    # A model and its control are on all benchmarks one after another.
    evaluator = replace(evaluator, load_clip=lru_cache(maxsize=2)(evaluator.load_clip))
    for model in models:
        for found in measure(work, evaluator, model):
            results = found.results
            value = results.metrics[results.primary].value
            say(f"{model} on {results.benchmark}: {results.primary} {value:.2%}")


def _reproduction(
    place: Place,
    *,
    coco: Path,
    out: Path,
    seeds: Sequence[str],
    also: Sequence[str],
    classes: str | None,
    templates: str | None,
    **given: Any,
) -> Reproduction:
    from models.reproduction import Reproduction

    coco, out = coco.absolute(), out.absolute()
    if out.exists() and not out.is_dir():
        raise click.UsageError(f"--out must be a folder, but {out} is a file.")
    missing = [name for name in (_TRAIN, _VALIDATION, _IMAGES) if not (coco / name).exists()]
    if missing:
        raise DataError(
            f"{coco} does not contain {', '.join(missing)}. Download COCO 2017 into it as docs/reproduce.md says."
        )
    own = {
        "data": coco / _TRAIN, "val": coco / _VALIDATION, "images": coco / _IMAGES, "caption_cache": out / "captions",
    }  # fmt: skip
    numbers = _seeds(seeds)
    paths = {name: given.pop(name.replace("-", "_")) for name in BENCHMARKS if name != "retrieval"}
    configs = [_config(given | own | {"seed": seed}, place) for seed in numbers]
    asked = [
        EvaluationRequest(
            benchmark=name,
            model=given["base"],
            data=path if name == "winoground" and not Path(path).exists() else str(Path(path).absolute()),
            images=_images(Path(path), coco) if name in _ON_VALIDATION_IMAGES else None,
            classes=classes if name == "zero-shot" else None,
            templates=templates if name == "zero-shot" else None,
        )
        for name, path in paths.items()
        if path is not None
    ]
    retrieval = EvaluationRequest(
        benchmark="retrieval", model=given["base"], data=str(coco / _VALIDATION), images=coco / _IMAGES
    )
    return Reproduction(
        config=configs[0], seeds=numbers, benchmarks=(*asked, retrieval), also=_also(also), out=out
    )


def _seeds(given: Sequence[str]) -> tuple[int, ...]:
    try:
        return tuple(dict.fromkeys(int(number) for text in given for number in text.split(",")))
    except ValueError as error:
        raise click.BadParameter(
            f"--seeds takes whole numbers, separated by commas, not {given[-1]!r}."
        ) from error


def _also(given: Sequence[str]) -> dict[str, str]:
    named = {}
    for text in given:
        name, equals, reference = text.partition("=")
        if not equals or not reference or ":" in name:
            raise click.BadParameter(f"--also takes NAME=REFERENCE, not {text!r}.")
        if not re.fullmatch(r"[\w+][\w.+-]*", name) or re.fullmatch("base|(control|sds-clip)(-.*)?", name):
            raise click.BadParameter(
                f"--also cannot call a model {name!r}; choose another name of letters and digits."
            )
        if name in named:
            raise click.BadParameter(f"--also has the name {name!r} twice.")
        named[name] = reference
    return named


def _config(given: Mapping[str, Any], place: Place) -> FinetuneConfig:
    """The options of SDS-CLIP's run, with `auto` resolved, so that all runs compute in the same format."""
    from models.precision import choose_precision

    given = {name: value for name, value in given.items() if value is not None}
    file = given.pop("config", None)
    in_file = read_options(file) if file else {}
    if taken := [name for name in _OWN if name in in_file]:
        raise ConfigError(f"{file} must not have {', '.join(taken)}, which `sds-clip reproduce` decides.")
    stated = given.keys() | in_file.keys() | ({"sds_weight"} if "lambda" in in_file else set())
    stated |= {"steps"} if "epochs" in in_file else set()
    defaults = {name: value for name, value in DEFAULTS.items() if name not in stated}
    config = read_config(file, defaults | given)
    names = ("precision", "teacher_precision")
    return config.model_copy(
        update={name: choose_precision(getattr(config, name), place.device) for name in names}
    )


def _images(data: Path, coco: Path) -> Path | None:
    """COCO's images for a benchmark that has none of its own."""
    folder = data.parent if data.is_file() else data
    return None if (folder / "val2017").is_dir() else coco / _IMAGES


def _checked(work: Reproduction) -> list[Benchmark]:
    """Find what cannot be used before anything is written, and return the benchmarks."""
    from models.data.open import open_pairs
    from models.evaluation.read import read_benchmark
    from models.evaluation.winoground import HUB_ID
    from models.teacher.folder import find_family, find_folder
    from models.teacher.load import read_schedule

    for reference in (work.config.base, *work.also.values()):
        check_reference(reference)
    assert work.config.teacher is not None
    name, folder = find_folder(work.config.teacher, vae=work.config.needs_vae)
    find_family(folder, name)
    read_schedule(folder)
    for file in (work.config.data, work.config.val):
        assert file is not None
        open_pairs(file, images=work.config.images)
    with tempfile.TemporaryDirectory(prefix="sds-clip-reproduce-") as made:
        return [
            read_benchmark(
                asked.benchmark,
                asked.data,
                work=Path(made),
                images=asked.images,
                classes=asked.classes,
                templates=asked.templates,
            )
            for asked in work.benchmarks
            if asked.data != HUB_ID
        ]
