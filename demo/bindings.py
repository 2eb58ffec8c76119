"""Measures what an image embedding holds of a caption, for the teacher: `python -m sds_clip.demo.bindings MODEL...`.

A linear map is fitted from each model's embeddings to the latents of training images, like the mapper's ridge
start. The map's output on validation images is noised, and the teacher denoises it under three captions: the
image's own caption, the caption of another image (which names other things), and the own caption with two parts
swapped (which has the same words). The increase of the error shows what the embedding holds of words, and of
which attribute belongs to which object.
"""

import argparse
from dataclasses import dataclass

import PIL.Image
import torch
from jaxtyping import Float
from torch import Tensor

from sds_clip.demo.options import run
from sds_clip.demo.sets import pairs
from sds_clip.demo.training_set import DemoPairs
from sds_clip.demo.world import Split
from sds_clip.models.checkpoints.load import load_clip
from sds_clip.models.clip.model import Clip
from sds_clip.models.data.negatives import swap_negatives
from sds_clip.models.losses.sds import caption_residual
from sds_clip.models.teacher.load import load_teacher
from sds_clip.models.teacher.pixels import teacher_view
from sds_clip.models.teacher.teacher import Teacher
from sds_clip.models.training.config import FinetuneConfig, parse_config
from sds_clip.models.training.randomness import draw_noise, draw_timesteps
from sds_clip.models.training.ridge import ridge_mapper

SEED = 5  # for validation pairs other than those used for retrieval
FITTED = 4096
COUNT = 600
TIMESTEPS = (600, 950)


@dataclass(frozen=True)
class Residuals:
    """The teacher's errors on latents of the same images; the explained share of the real ones' variance."""

    r2: float
    own: Float[Tensor, "n"]
    other: Float[Tensor, "n"]
    swapped: Float[Tensor, "n"]

    def gap(self, under: Float[Tensor, "n"]) -> tuple[float, float]:
        """Increase of the error in percent of that under the own captions, and its standard error."""
        more = 100 * (under - self.own) / self.own.mean()
        return more.mean().item(), (more.std() / len(more) ** 0.5).item()


def ridge_config(images: int) -> FinetuneConfig:
    """A configuration whose mapper is fitted to all of a number of images."""
    options = {"base": "demo", "data": "demo", "objective": "sds-clip", "teacher": "demo", "steps": 1}
    return parse_config({**options, "batch_size": 128, "ridge_images": images})


class Probe:
    """Validation images with two objects each, their captions, and common noise."""

    def __init__(self, teacher: Teacher, base: Clip, count: int = COUNT) -> None:
        drawn = pairs(Split.VALIDATION, SEED, 0, 3 * count)
        swaps = {
            index: found[0]
            for index, caption in enumerate(drawn.captions)
            if (found := swap_negatives(caption, 1, seed=SEED, index=index))
        }
        places = list(swaps)[:count]
        self._teacher = teacher
        self._images = [PIL.Image.fromarray(drawn.images[place]) for place in places]
        own = [drawn.captions[place] for place in places]
        self._own = teacher.encode_captions(own)
        self._swapped = teacher.encode_captions([swaps[place] for place in places])
        self._timesteps = draw_timesteps(SEED, 0, places, *TIMESTEPS)
        self._noise = draw_noise(SEED, 0, places, teacher.latent_shape)
        view = teacher_view(base, teacher.resolution_px)
        self._real = teacher.encode_image(torch.stack([view(image) for image in self._images]))

    def real(self) -> Residuals:
        """Errors on the VAE's own latents."""
        return self._residuals(self._real)

    @torch.no_grad()
    def of(self, clip: Clip, trained_on: DemoPairs) -> Residuals:
        """Errors on the linear reconstruction from a model's embeddings."""
        mapper = ridge_mapper(ridge_config(len(trained_on)), clip, self._teacher, trained_on)
        pixels = torch.stack([clip.preprocess(image) for image in self._images])
        latents: Tensor = mapper(clip.encode_image(pixels, normalize=False))
        return self._residuals(latents)

    def _residuals(self, latents: Tensor) -> Residuals:
        own, other, swapped = (
            caption_residual(latents, captions, self._timesteps, self._noise, teacher=self._teacher)
            for captions in (self._own, self._own.roll(1, dims=0), self._swapped)
        )
        spread = (self._real - self._real.mean(dim=0)).square().mean()
        return Residuals(1 - ((self._real - latents).square().mean() / spread).item(), own, other, swapped)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+", metavar="MODEL", help="References of the models to probe.")
    parser.add_argument("--teacher", default="demo", help="Reference of the teacher.")
    options = parser.parse_args()
    teacher = load_teacher(options.teacher, device="cpu", precision="float32", vae=True)
    probe = Probe(teacher, load_clip("demo", device="cpu", precision="float32"))
    print("| latents | variance explained | residual | another's caption, % | words swapped, % |")
    print("| --- | ---: | ---: | ---: | ---: |")
    print(_row("the VAE's", probe.real()))
    trained_on = DemoPairs(FITTED)
    for reference in options.models:
        clip = load_clip(reference, device="cpu", precision="float32")
        print(_row(f"from {reference}", probe.of(clip, trained_on)), flush=True)


def _row(name: str, found: Residuals) -> str:
    gaps = " | ".join(
        f"{mean:+.1f} ± {error:.1f}" for mean, error in map(found.gap, (found.other, found.swapped))
    )
    return f"| {name} | {found.r2:.2f} | {found.own.mean():.4f} | {gaps} |"


if __name__ == "__main__":
    run(main)
