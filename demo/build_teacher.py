"""Train the demo teacher: tokenizer, autoencoder, transformer and text encoder. `python -m demo.build_teacher`."""

from __future__ import annotations

import argparse
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

from diffusers import PixArtTransformer2DModel
from transformers import T5EncoderModel

from demo.checkpoint import seconds_trained
from demo.sets import training_pairs
from demo.teacher import CONTEXT_LENGTH, save_teacher
from demo.teacher_tokenizer import load_teacher_tokenizer, save_teacher_tokenizer
from demo.teacher_validation import in_memory, load_teacher_validation, match_scores
from demo.train_teacher import TeacherRecipe, load_pool, train_teacher
from demo.train_vae import VaeRecipe, train_vae

DEMO = Path(__file__).parent
WORK_DIR = Path(tempfile.gettempdir()) / "sds-clip-demo-teacher"  # survives cleaning the work tree
TOKENIZER_CAPTIONS = 8192


def build_teacher(work_dir: Path, into: Path, recipe: TeacherRecipe, vae_recipe: VaeRecipe) -> float:
    """Train everything in order; an interrupted build continues where it stopped.

    Returns the seconds of training over all calls.
    """
    captions = training_pairs(recipe.seed, 0, TOKENIZER_CAPTIONS).captions
    save_teacher_tokenizer(work_dir / "tokenizer", captions, CONTEXT_LENGTH)
    tokenizer = load_teacher_tokenizer(work_dir / "tokenizer")
    vae = train_vae(vae_recipe, work_dir)
    validation = load_teacher_validation(vae)

    def watch(transformer: PixArtTransformer2DModel, text_encoder: T5EncoderModel) -> dict[str, float]:
        return match_scores(in_memory(transformer, text_encoder, tokenizer), validation)

    transformer, text_encoder = train_teacher(
        recipe, tokenizer, load_pool(recipe, vae, work_dir), watch, work_dir
    )
    finished = work_dir / "teacher"
    save_teacher(vae, transformer, text_encoder, tokenizer, finished)
    shutil.copytree(finished, into, dirs_exist_ok=True)
    return seconds_trained(work_dir / "vae.pt") + seconds_trained(work_dir / "teacher.pt")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work-dir", type=Path, default=WORK_DIR, help="Folder for checkpoints and logs.")
    parser.add_argument(
        "--into", type=Path, default=DEMO / "teacher", help="Folder into which the teacher is written."
    )
    parser.add_argument("--steps", type=int, default=TeacherRecipe.steps, help="Number of training steps.")
    options = parser.parse_args()
    print(f"Checkpoints and the log are written to {options.work_dir}.", flush=True)
    recipe = replace(TeacherRecipe(), steps=options.steps)
    seconds = build_teacher(options.work_dir, options.into, recipe, VaeRecipe())
    print(f"Wrote {options.into} after {seconds / 60:.0f} minutes of training in all.")


if __name__ == "__main__":
    main()
