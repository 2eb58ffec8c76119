"""The base students of the comparison of objectives, each from a seed of its own."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from sds_clip.demo.build import BY_CONTRAST_ALONE, build
from sds_clip.demo.train_student import Recipe
from sds_clip.models.atomic import atomic_folder


def student_of(seed: int, work_dir: Path, *, by_contrast_alone: bool) -> Path:
    """The folder of a base student under `work_dir`."""
    return work_dir / f"base-{seed}{'-by-contrast-alone' * by_contrast_alone}"


def train_base(
    seed: int, work_dir: Path, *, by_contrast_alone: bool, compiled: bool, recipe: Recipe | None = None
) -> Path:
    """Train a base student, unless it is there; an interrupted training continues. Returns its folder."""
    folder = student_of(seed, work_dir, by_contrast_alone=by_contrast_alone)
    if not folder.exists():
        recipe = replace(recipe or Recipe(), seed=seed)
        if by_contrast_alone:
            recipe = replace(recipe, **BY_CONTRAST_ALONE)
        training = folder.with_name(f"{folder.name}-training")
        build(training / "checkpoints", training / "built", recipe, compiled=compiled)
        with atomic_folder(folder) as unfinished:
            shutil.copytree(training / "built" / "student", unfinished, dirs_exist_ok=True)
        shutil.rmtree(training)
    return folder
