"""The mapper's closed-form start, fitted to the VAE latents of training images."""

from __future__ import annotations

from collections.abc import Callable

import torch

from models.clip import Clip
from models.data.batches import order
from models.data.pairs import PairSet
from models.mapper import Mapper
from models.teacher.pixels import teacher_view
from models.teacher.teacher import Teacher
from models.training.config import FinetuneConfig


def ridge_mapper(
    config: FinetuneConfig,
    base: Clip,
    teacher: Teacher,
    pairs: PairSet,
    between: Callable[[], None] = lambda: None,
) -> Mapper:
    """Fit a mapper from the base's image features to VAE latents; see `models.mapper`.

    The images are drawn by the seed. `between` is called after each batch of images.

    Raises:
        TeacherError: the VAE is not loaded.
    """
    view = teacher_view(base, teacher.resolution_px)
    features, latents = [], []
    # In the order of the first epoch: the first images of a folder sorted by class would be of few classes.
    chosen = torch.from_numpy(order(len(pairs), config.seed, epoch=0)[: config.ridge_images])
    for indices in torch.split(chosen, config.batch_size):
        images = [pairs.image(int(index)) for index in indices]
        pixels = torch.stack([base.preprocess(image) for image in images])
        features.append(base.encode_image(pixels, normalize=False))
        latents.append(teacher.encode_image(torch.stack([view(image) for image in images])))
        between()
    return Mapper.from_ridge(
        torch.cat(features), torch.cat(latents), ridge=config.ridge, input=config.mapper_input
    )
