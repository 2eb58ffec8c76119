"""What the options of `sds-clip reproduce` ask for."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sds_clip.commands.finetune import read_config
from sds_clip.models.errors import ConfigError, DataError
from sds_clip.models.evaluation.catalog import BENCHMARKS
from sds_clip.models.evaluation.request import EvaluationRequest
from sds_clip.run_file import read_options

if TYPE_CHECKING:
    from sds_clip.models.reproduction import Reproduction
    from sds_clip.models.training.config import FinetuneConfig
    from sds_clip.models.training.processes import Rank

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
_OWN = (
    "base", "teacher", "data", "images", "val", "val_images", "objective", "seed", "caption_cache", "device",
    "data_format", "image_key", "caption_key", "separator",
)  # fmt: skip
"""Options of a run that this command decides, by its own options."""
TRAIN, VALIDATION, IMAGES = "captions_train2017.json", "captions_val2017.json", "images"
_ON_VALIDATION_IMAGES = ("sugarcrepe", "sugarcrepe-pp", "coco-spatial")
"""Benchmarks whose images, in val2017, are COCO's."""


def reproduction_of(
    rank: Rank,
    *,
    coco: Path,
    out: Path,
    seeds: Sequence[str],
    also: Sequence[str],
    classes: str | None,
    templates: str | None,
    **given: Any,
) -> Reproduction:
    from sds_clip.models.reproduction import FOLDERS, Reproduction

    coco, out = coco.absolute(), out.absolute()
    there = next(each for each in (out, *out.parents) if each.exists())
    for folder in (there, *(out / name for name in FOLDERS)):
        if folder.exists() and not folder.is_dir():
            raise click.UsageError(f"--out must be a folder, but {folder} is a file.")
    if not os.access(there, os.W_OK):
        raise click.UsageError(f"--out must be a folder that can be written, but {there} cannot.")
    missing = [name for name in (TRAIN, VALIDATION, IMAGES) if not (coco / name).exists()]
    if missing:
        raise DataError(
            f"{coco} does not contain {', '.join(missing)}. Download COCO 2017 into it as docs/reproduce.md says."
        )
    own = {
        "data": coco / TRAIN, "val": coco / VALIDATION, "images": coco / IMAGES, "caption_cache": out / "captions",
    }  # fmt: skip
    numbers = _seeds(seeds)
    if given["zero_shot"] is None and (classes or templates):
        raise click.UsageError("--classes and --templates belong to --zero-shot, which is missing.")
    paths = {name: given.pop(name.replace("-", "_")) for name in BENCHMARKS if name != "retrieval"}
    configs = [_config(given | own | {"seed": seed}, rank) for seed in numbers]
    ask = partial(EvaluationRequest, model=given["base"], max_bad_share=configs[0].max_bad_share)
    asked = [
        ask(
            benchmark=name,
            data=path if name == "winoground" and not Path(path).exists() else str(Path(path).absolute()),
            images=_images(Path(path), coco) if name in _ON_VALIDATION_IMAGES else None,
            classes=classes if name == "zero-shot" else None,
            templates=templates if name == "zero-shot" else None,
        )
        for name, path in paths.items()
        if path is not None
    ]
    retrieval = ask(benchmark="retrieval", data=str(coco / VALIDATION), images=coco / IMAGES)
    return Reproduction(
        config=configs[0], seeds=numbers, benchmarks=(*asked, retrieval), also=_also(also), out=out
    )


def _seeds(given: Sequence[str]) -> tuple[int, ...]:
    numbers = [number.strip() for text in given for number in text.split(",")]
    if wrong := [number for number in numbers if not re.fullmatch("-?[0-9]{1,10}", number)]:
        raise click.BadParameter(f"--seeds takes whole numbers, separated by commas, not {wrong[0]!r}.")
    return tuple(dict.fromkeys(map(int, numbers)))


def _also(given: Sequence[str]) -> dict[str, str]:
    named = {}
    for text in given:
        name, equals, reference = text.partition("=")
        if not equals or not reference or ":" in name:
            raise click.BadParameter(f"--also takes NAME=REFERENCE, not {text!r}.")
        if not re.fullmatch(r"[\w+][\w.+-]{0,63}", name) or re.fullmatch(
            "base|(control|sds-clip)(-.*)?", name
        ):
            raise click.BadParameter(
                f"--also cannot call a model {name!r}; choose another name, of at most 64 letters and digits."
            )
        if name in named:
            raise click.BadParameter(f"--also has the name {name!r} twice.")
        named[name] = reference
    return named


def _config(given: Mapping[str, Any], rank: Rank) -> FinetuneConfig:
    """The options of SDS-CLIP's run, resolved, so that all runs compute in the same format."""
    from sds_clip.models.training.run import resolved

    given = {name: value for name, value in given.items() if value is not None}
    file = given.pop("config", None)
    in_file = read_options(file) if file else {}
    if taken := [name for name in _OWN if name in in_file]:
        raise ConfigError(f"{file} must not have {', '.join(taken)}, which `sds-clip reproduce` decides.")
    stated = given.keys() | in_file.keys() | ({"sds_weight"} if "lambda" in in_file else set())
    stated |= {"steps"} if "epochs" in in_file else set()
    defaults = {name: value for name, value in DEFAULTS.items() if name not in stated}
    return resolved(read_config(file, defaults | given), rank)


def _images(data: Path, coco: Path) -> Path | None:
    """COCO's images for a benchmark that has none of its own."""
    folder = data.parent if data.is_file() else data
    return None if (folder / "val2017").is_dir() else coco / IMAGES
