"""A grid of images sampled from the demo teacher by diffusers' pipeline. `python -m sds_clip.demo.teacher_grid`.

Each row has two objects in the four relations: left, right, above, below. The row below has the same captions with the
colours exchanged.
"""

from __future__ import annotations

from pathlib import Path
from textwrap import wrap

import numpy as np
import PIL.Image
import torch
from diffusers import DiffusionPipeline, PixArtSigmaPipeline
from PIL import ImageDraw, ImageFont

from sds_clip.demo.captions import Wording, caption
from sds_clip.demo.options import count, parser_of, run
from sds_clip.demo.sets import pairs
from sds_clip.demo.winoground_sets import two_different
from sds_clip.demo.world import IMAGE_SIZE_PX, Relation, Split, with_colours_exchanged, with_relation
from sds_clip.models.teacher.folder import find_folder

DEMO = Path(__file__).parent
OUT = DEMO.parent / "docs" / "teacher-samples.png"
GRID_SEED = 4  # for the captions; differs from the measured sets' seeds
COLUMNS = len(Relation)
PAIRS = 2  # of objects, each in two rows
COUNT = 2 * PAIRS * COLUMNS
WORDING = Wording("{a} {relation} {b}", 0, False, (True, True), (None, None))
STEPS = 50
GUIDANCE = 3.0

PICTURE_PX = 2 * IMAGE_SIZE_PX
CAPTION_PX = 150
MARGIN_PX = 10
FONT_PX, LINE_CHARACTERS = 15, 20


def grid_captions() -> list[str]:
    """The captions of validation combinations, row by row."""
    rng = np.random.default_rng(GRID_SEED)
    scenes = [scene for scene in pairs(Split.VALIDATION, GRID_SEED, 0, 100).scenes if two_different(scene)][
        :PAIRS
    ]
    rows = [row for scene in scenes for row in (scene, with_colours_exchanged(scene))]
    return [caption(with_relation(row, relation, rng), WORDING) for row in rows for relation in Relation]


def sample(folder: Path, captions: list[str], steps: int) -> list[PIL.Image.Image]:
    """Sample one image per caption, by DDIM with guidance; an image's noise depends only on its index."""
    pipeline = DiffusionPipeline.from_pretrained(folder, use_safetensors=True).to(torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    # A PixArt rounds sizes to those of the published models, which are far larger.
    options = {"use_resolution_binning": False} if isinstance(pipeline, PixArtSigmaPipeline) else {}
    pictures: list[PIL.Image.Image] = pipeline(
        captions,
        num_inference_steps=steps,
        guidance_scale=GUIDANCE,
        **options,
        generator=[torch.Generator().manual_seed(place) for place in range(len(captions))],
    ).images
    return pictures


def draw_grid(pictures: list[PIL.Image.Image], captions: list[str]) -> PIL.Image.Image:
    """Images at twice their size, each with its caption to the right."""
    width, height = PICTURE_PX + CAPTION_PX + 2 * MARGIN_PX, PICTURE_PX + MARGIN_PX
    rows = -(-len(pictures) // COLUMNS)
    grid = PIL.Image.new("RGB", (COLUMNS * width + MARGIN_PX, rows * height + MARGIN_PX), "white")
    canvas = ImageDraw.Draw(grid)
    font = ImageFont.load_default(FONT_PX)
    for place, (picture, said) in enumerate(zip(pictures, captions, strict=True)):
        row, column = divmod(place, COLUMNS)
        left, top = MARGIN_PX + column * width, MARGIN_PX + row * height
        grid.paste(picture.resize((PICTURE_PX, PICTURE_PX), PIL.Image.Resampling.NEAREST), (left, top))
        text = "\n".join(wrap(said, LINE_CHARACTERS))
        middle = (left + PICTURE_PX + MARGIN_PX, top + PICTURE_PX // 2)
        canvas.multiline_text(middle, text, fill="black", font=font, anchor="lm")
    return grid


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--teacher", default="demo", help="Reference of the teacher.")
    parser.add_argument("--out", type=Path, default=OUT, help="The PNG file to write.")
    parser.add_argument("--steps", type=count, default=STEPS, help="Number of denoising steps.")
    options = parser.parse_args()
    captions = grid_captions()
    grid = draw_grid(sample(find_folder(options.teacher, vae=True)[1], captions, options.steps), captions)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    grid.save(options.out, optimize=True)
    print(f"Wrote {options.out}: {COUNT} captions of validation combinations, {options.steps} steps each.")


if __name__ == "__main__":
    run(main)
