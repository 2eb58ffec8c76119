"""Rebuild the demo: tokenizer, Winoground-style sets, student. `python -m sds_clip.demo.build --work-dir DIR`."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from open_clip.tokenizer import HFTokenizer

from sds_clip.demo.options import add_compile, count, parser_of, run
from sds_clip.demo.sets import training_pairs
from sds_clip.demo.student import save_student
from sds_clip.demo.tokenizer import CONTEXT_LENGTH, save_tokenizer
from sds_clip.demo.train_student import Recipe, train_student
from sds_clip.demo.validation import load_validation
from sds_clip.demo.winoground_sets import winoground_items, write_winoground
from sds_clip.demo.world import Split

DEMO = Path(__file__).parent
WORK_DIR = Path(".cache/demo-world")
TOKENIZER_CAPTIONS = 8192
BY_CONTRAST_ALONE: dict[str, Any] = {
    "steps": 1400,
    "heads_steps": 0,
    "places_weight": 0.0,
    "bindings_weight": 0.0,
}
"""Changes to the recipe of a student whose embeddings have no reason to hold what is where."""


def build(work_dir: Path, into: Path, recipe: Recipe, *, compiled: bool = False) -> None:
    """Build everything in order under `into`; an interrupted build continues where it stopped."""
    student_folder = work_dir / "student"
    save_tokenizer(student_folder, training_pairs(recipe.seed, 0, TOKENIZER_CAPTIONS).captions)
    for split in (Split.VALIDATION, Split.HELD_OUT):
        write_winoground(into / "data" / split, winoground_items(split))
        shutil.make_archive(str(into / "data" / split), "zip", into / "data" / split, "images")
    tokenizer = HFTokenizer(str(student_folder), context_length=CONTEXT_LENGTH)
    student = train_student(recipe, tokenizer, load_validation(tokenizer), work_dir, compiled=compiled)
    save_student(student, student_folder)
    shutil.copytree(student_folder, into / "student", dirs_exist_ok=True)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--work-dir", type=Path, default=WORK_DIR, help="Folder for checkpoints and logs.")
    parser.add_argument(
        "--into",
        type=Path,
        help="Folder into which student/ and data/ are written (default, for the demo's own student: demo).",
    )
    parser.add_argument("--steps", type=count, help=f"Number of training steps (default: {Recipe.steps}).")
    parser.add_argument("--seed", type=int, default=Recipe.seed, help="Seed of the weights and of the pairs.")
    parser.add_argument(
        "--by-contrast-alone",
        action="store_true",
        help=f"Train {BY_CONTRAST_ALONE['steps']} steps without heads, so that the embeddings have no reason to hold "
        "what is where.",
    )
    parser.add_argument("--learning-rate", type=float, default=Recipe.learning_rate)
    add_compile(parser)
    options = parser.parse_args()
    recipe = Recipe(learning_rate=options.learning_rate, seed=options.seed)
    if options.by_contrast_alone:
        recipe = replace(recipe, **BY_CONTRAST_ALONE)
    if options.steps is not None:
        recipe = replace(recipe, steps=options.steps)
    if options.into is None and recipe != Recipe():
        parser.error("This is not the demo's own student. Give the folder for it with --into.")
    build(options.work_dir, options.into or DEMO, recipe, compiled=options.compile)


if __name__ == "__main__":
    run(main)
