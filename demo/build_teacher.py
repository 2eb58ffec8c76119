"""Train the demo teacher: tokenizer, VAE, transformer and text encoder. `python -m sds_clip.demo.build_teacher`."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from diffusers import AutoencoderKL, PixArtTransformer2DModel
from transformers import T5EncoderModel

from sds_clip.demo.checkpoint import seconds_trained
from sds_clip.demo.lessons import Lessons, ShapeLessons
from sds_clip.demo.options import add_compile, count, parser_of, run
from sds_clip.demo.teacher import CONTEXT_LENGTH, new_vae, save_teacher
from sds_clip.demo.teacher_tokenizer import load_teacher_tokenizer, save_teacher_tokenizer
from sds_clip.demo.teacher_validation import (
    TeacherValidation,
    in_memory,
    load_teacher_validation,
    match_scores,
)
from sds_clip.demo.train_teacher import TeacherRecipe, load_pool, train_teacher
from sds_clip.demo.train_text_encoder import TextRecipe, train_text_encoder
from sds_clip.demo.train_vae import VaeRecipe, train_vae

DEMO = Path(__file__).parent
WORK_DIR = Path(".cache/demo-teacher")
TOKENIZER_CAPTIONS = 8192


@dataclass(frozen=True)
class Build:
    """What to build, and how."""

    recipe: TeacherRecipe
    into: Path
    work_dir: Path
    vae: Path | None = None  # folder of an autoencoder to keep; None trains one
    compiled: bool = False


@dataclass(frozen=True)
class World:
    """What a teacher learns from, and what its training is watched on."""

    lessons: Lessons
    validation: Callable[[AutoencoderKL], TeacherValidation]


def build_teacher(build: Build, world: World, vae_recipe: VaeRecipe, text_recipe: TextRecipe) -> float:
    """Train everything in order; an interrupted build continues where it stopped.

    The teacher and the placebo share the tokenizer, the autoencoder, the latents and the text encoder's start.
    Returns the seconds of training over all calls.
    """
    work_dir, recipe, lessons = build.work_dir, build.recipe, world.lessons
    captions = [caption for (caption,) in lessons.captions(0, TOKENIZER_CAPTIONS, 1)]
    save_teacher_tokenizer(work_dir / "tokenizer", captions, CONTEXT_LENGTH)
    tokenizer = load_teacher_tokenizer(work_dir / "tokenizer")
    vae = train_vae(vae_recipe, lessons, work_dir) if build.vae is None else load_vae(build.vae)
    text_encoder = train_text_encoder(text_recipe, tokenizer, lessons, work_dir)
    validation = world.validation(vae)

    def watch(transformer: PixArtTransformer2DModel, encoder: T5EncoderModel) -> dict[str, float]:
        return match_scores(in_memory(transformer, encoder, tokenizer), validation, draws_each=1)

    own = work_dir / ("teacher" if recipe.binding else "placebo")
    pool = load_pool(recipe, vae, lessons, work_dir)
    transformer, text_encoder = train_teacher(
        recipe, tokenizer, text_encoder, pool, watch, own, watch_every=250, compiled=build.compiled
    )
    save_teacher(vae, transformer, text_encoder, tokenizer, own / "folder")
    shutil.copytree(own / "folder", build.into, dirs_exist_ok=True)
    files = [work_dir / "text_encoder.pt", own / "teacher.pt"]
    if build.vae is None:
        files.append(work_dir / "vae.pt")
    return sum(seconds_trained(file) for file in files)


def load_vae(folder: Path) -> AutoencoderKL:
    loaded = AutoencoderKL.from_pretrained(folder, torch_dtype=torch.float32)
    vae = new_vae()  # a loaded one would store its folder's path with the new teacher
    vae.load_state_dict(loaded.state_dict())
    vae.register_to_config(scaling_factor=loaded.config.scaling_factor)
    return vae.eval().requires_grad_(False)


def command(description: str | None, home: Path, work: Path, world: Callable[[Path, int], World]) -> None:
    """Read the options, and build the teacher of the world that the work folder and a seed determine."""
    parser = parser_of(description)
    parser.add_argument("--work-dir", type=Path, default=work, help="Folder for checkpoints and logs.")
    parser.add_argument(
        "--into",
        type=Path,
        help=f"Folder into which the teacher is written (default: teacher or placebo in {home}).",
    )
    parser.add_argument("--steps", type=count, default=TeacherRecipe.steps, help="Number of training steps.")
    parser.add_argument(
        "--placebo",
        action="store_true",
        help="Train the placebo: its captions have the right words, bound at random.",
    )
    parser.add_argument(
        "--vae", type=Path, help="Folder of an autoencoder to keep. Without it, one is trained."
    )
    add_compile(parser)
    options = parser.parse_args()
    recipe = replace(TeacherRecipe(), steps=options.steps, binding=not options.placebo)
    if options.into is None and recipe.steps != TeacherRecipe.steps:
        parser.error("This is not the demo's own teacher. Give the folder for it with --into.")
    print(f"Checkpoints and the log are written to {options.work_dir}.", flush=True)
    build = Build(
        recipe=recipe,
        into=options.into or home / ("placebo" if options.placebo else "teacher"),
        work_dir=options.work_dir,
        vae=options.vae,
        compiled=options.compile,
    )
    seconds = build_teacher(build, world(options.work_dir, recipe.seed), VaeRecipe(), TextRecipe())
    print(f"Wrote {build.into} after {seconds / 60:.0f} minutes of training in all.")


def shapes(work: Path, seed: int) -> World:
    return World(ShapeLessons(seed), load_teacher_validation)


def main() -> None:
    command(__doc__, DEMO, WORK_DIR, shapes)


if __name__ == "__main__":
    run(main)
