"""Train the teacher of the world of pictures, by captions alone. `python -m sds_clip.demo.emoji.build_teacher`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL

from sds_clip.demo.build_teacher import World, command
from sds_clip.demo.emoji.build import EMOJI, WORK_DIR, all_pictures
from sds_clip.demo.emoji.draw import Drawer
from sds_clip.demo.emoji.lessons import PictureLessons, to_bytes
from sds_clip.demo.emoji.measure import KINDS, SEED, draw_item
from sds_clip.demo.emoji.packages import SEEN
from sds_clip.demo.emoji.pictures import Pictures
from sds_clip.demo.options import run
from sds_clip.demo.teacher_validation import TeacherValidation
from sds_clip.demo.train_teacher import encode
from sds_clip.demo.world import Split


def items(
    vae: AutoencoderKL,
    pictures: Pictures,
    vendors: Sequence[str],
    *,
    split: Split = Split.VALIDATION,
    per_kind: int = 50,
) -> TeacherValidation:
    """Draw and encode items of a part, with the pictures of these vendors."""
    rng, drawer = np.random.default_rng(SEED), Drawer(pictures, vendors)
    flat = [scene for kind in KINDS for _ in range(per_kind) for scene in draw_item(kind, split, rng)]
    return TeacherValidation(
        latents=encode(vae, torch.from_numpy(to_bytes(drawer(flat, rng)))),
        captions=[scene.caption for scene in flat],
        kinds=[kind for kind in KINDS for _ in range(per_kind)],
    )


def world(work: Path, seed: int) -> World:
    pictures = all_pictures(work)
    return World(
        PictureLessons(pictures, seed),
        partial(items, pictures=pictures, vendors=[each.name for each in SEEN]),
    )


if __name__ == "__main__":
    run(lambda: command(__doc__, EMOJI, WORK_DIR, world))
