"""What a teacher knows: GroupMatch by kind of swap and noise level, and the group score by kind.

The training of the demo teacher logs these. `python -m sds_clip.demo.teacher_validation TEACHER...` prints their table.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import AutoencoderKL, PixArtTransformer2DModel
from jaxtyping import Float
from torch import Tensor
from transformers import T5EncoderModel, T5Tokenizer

from sds_clip.demo.options import add_split, count, parser_of, run
from sds_clip.demo.render import render
from sds_clip.demo.teacher import LATENT_CHANNELS, LATENT_SIZE, new_scheduler
from sds_clip.demo.train_teacher import encode
from sds_clip.demo.winoground_sets import WINOGROUND_SEED, winoground_items
from sds_clip.demo.world import IMAGE_SIZE_PX, Split
from sds_clip.models.noise import Levels
from sds_clip.models.teacher.diffusion_score import denoising_errors
from sds_clip.models.teacher.load import load_teacher
from sds_clip.models.teacher.teacher import UNCONDITIONAL, Teacher
from sds_clip.models.teacher.transformer import PixArt

BATCH_SIZE = 256
LEVELS = (500, 700, 850, 940, 985)
"""The timesteps at which captions are compared."""


@dataclass(frozen=True)
class TeacherValidation:
    """Winoground-style items; an item's two images, and its two captions, are adjacent."""

    latents: Float[Tensor, "pictures c h w"]
    captions: list[str]
    kinds: list[str]


def load_teacher_validation(
    vae: AutoencoderKL,
    items_per_kind: int = 50,
    *,
    split: Split = Split.VALIDATION,
    seed: int = WINOGROUND_SEED,
) -> TeacherValidation:
    """Draw and encode items of a part."""
    items = winoground_items(split, items_per_kind, seed=seed)
    images = torch.from_numpy(np.stack([render(scene) for item in items for scene in item.scenes]))
    return TeacherValidation(
        latents=encode(vae, images),
        captions=[text for item in items for text in item.captions],
        kinds=[item.kind for item in items],
    )


def match_scores(teacher: Teacher, validation: TeacherValidation, *, draws_each: int = 2) -> dict[str, float]:
    """GroupMatch of each kind at each of LEVELS, and the group score of each kind over all levels.

    The score of a pair is how much its caption lowers the velocity's error, in comparison with no caption. Noise is the
    same for all captions and images, as in the diffusion score of `sds-clip evaluate`, and in every call.
    """
    gains = caption_gains(teacher, validation, draws_each)
    by_level = gains.view(*gains.shape[:3], len(LEVELS), draws_each).mean(dim=4)
    scores: dict[str, float] = {}
    for kind in dict.fromkeys(validation.kinds):
        chosen = torch.tensor([name == kind for name in validation.kinds])
        for place, level in enumerate(LEVELS):
            scores[f"{kind}_match_{level}"] = _share(_matched(by_level[chosen, :, :, place]))
        overall = by_level[chosen].mean(dim=3)
        scores[f"{kind}_match"] = _share(_matched(overall))
        scores[f"{kind}_group"] = _share(_grouped(overall))
    return scores


def caption_gains(
    teacher: Teacher, validation: TeacherValidation, draws_each: int
) -> Float[Tensor, "items image=2 caption=2 draws"]:
    """How much each caption of an item lowers the error of each of its images, at `draws_each` draws of each level."""
    latents, count = validation.latents, len(LEVELS) * draws_each
    generator = torch.Generator().manual_seed(0)
    captions = teacher.encode_captions([*validation.captions, UNCONDITIONAL])
    of_item = captions[:-1].view(-1, 2, *captions.shape[1:]).repeat_interleave(2, dim=0)
    without = captions[-1:].expand(len(latents), 1, *captions.shape[1:])
    errors = denoising_errors(
        teacher,
        latents,
        torch.cat([of_item, without], dim=1),
        torch.tensor(LEVELS).repeat_interleave(draws_each).expand(len(latents), -1),
        torch.randn(1, count, *teacher.latent_shape, generator=generator).expand(
            len(latents), -1, -1, -1, -1
        ),
        batch_size=BATCH_SIZE,
        error_of="velocity",
    )
    return (errors[:, 2:] - errors[:, :2]).view(-1, 2, 2, count)


def _matched(scores: Float[Tensor, "items 2 2"]) -> Tensor:
    return scores[:, 0, 0] + scores[:, 1, 1] > scores[:, 0, 1] + scores[:, 1, 0]


def _grouped(scores: Float[Tensor, "items 2 2"]) -> Tensor:
    right = torch.minimum(scores[:, 0, 0], scores[:, 1, 1])
    return right > torch.maximum(scores[:, 0, 1], scores[:, 1, 0])


def _share(right: Tensor) -> float:
    return round(right.float().mean().item(), 4)


def in_memory(
    transformer: PixArtTransformer2DModel, text_encoder: T5EncoderModel, tokenizer: T5Tokenizer
) -> Teacher:
    """The teacher in its current state of training."""
    return Teacher(
        reference="the demo teacher in training",
        version="",
        family=PixArt("PixArtSigmaPipeline"),
        denoiser=transformer,
        text_encoders={"text_encoder": text_encoder},
        tokenizers={"text_encoder": tokenizer},
        vae=None,
        prediction_type="v_prediction",
        levels=Levels.of_abar(new_scheduler().alphas_cumprod),
        latent_shape=(LATENT_CHANNELS, LATENT_SIZE, LATENT_SIZE),
        resolution_px=IMAGE_SIZE_PX,
        device=torch.device("cpu"),
        dtype=torch.float32,
    )


def table_rows(name: str, scores: dict[str, float]) -> list[str]:
    """A row of the table for each kind."""
    columns = [*(f"match_{level}" for level in LEVELS), "match", "group"]
    rows = []
    for kind in (key.removesuffix("_group") for key in scores if key.endswith("_group")):
        shares = [f"{scores[kind + '_' + column]:.1%}" for column in columns]
        rows.append(f"| {name} | {kind} | {' | '.join(shares)} |")
    return rows


def print_table(rows: Iterable[tuple[str, dict[str, float]]]) -> None:
    """Print the scores of teachers by name, as they come."""
    levels = " | ".join(f"t = {level}" for level in LEVELS)
    print(f"| teacher | kind | GroupMatch at {levels} | at all | group |")
    print(f"| --- | --- |{' ---: |' * (len(LEVELS) + 2)}")
    for name, scores in rows:
        print("\n".join(table_rows(name, scores)), flush=True)
    print(f"| chance | |{' 50.0% |' * (len(LEVELS) + 1)} 16.7% |")


def load_measured(reference: str) -> tuple[Teacher, AutoencoderKL]:
    """A teacher by its reference, and its autoencoder."""
    teacher = load_teacher(reference, device="cpu", precision="float32", vae=True)
    assert teacher.vae is not None
    return teacher, teacher.vae


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("teachers", nargs="+", metavar="TEACHER", help="References of the teachers.")
    parser.add_argument("--items", type=count, default=500, help="Number of items of each kind.")
    parser.add_argument("--draws", type=count, default=4, help="Number of draws of noise at each level.")
    add_split(parser, Split.VALIDATION)
    parser.add_argument("--seed", type=int, default=WINOGROUND_SEED, help="Seed of the items.")
    options = parser.parse_args()

    def measured(reference: str) -> dict[str, float]:
        teacher, vae = load_measured(reference)
        items = load_teacher_validation(vae, options.items, split=options.split, seed=options.seed)
        return match_scores(teacher, items, draws_each=options.draws)

    print_table((reference, measured(reference)) for reference in options.teachers)


if __name__ == "__main__":
    run(main)
