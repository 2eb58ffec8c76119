"""The mapper's closed-form start, fitted to the VAE latents of training images."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from sds_clip.models.clip.model import Clip
from sds_clip.models.data.batches import order
from sds_clip.models.data.pairs import PairSet
from sds_clip.models.mapper import Mapper
from sds_clip.models.teacher.pixels import teacher_view
from sds_clip.models.teacher.teacher import Teacher
from sds_clip.models.training.config import FinetuneConfig


def ridge_mapper(
    config: FinetuneConfig,
    base: Clip,
    teacher: Teacher,
    pairs: PairSet,
    between: Callable[[int, int], None] = lambda done, total: None,
) -> Mapper:
    """Fit a mapper from the base's image features to VAE latents; see `sds_clip.models.mapper`.

    The images are drawn by the seed. `between(done, total)` is called before the first image, and each time that the
    VAE has encoded some.

    Raises:
        TeacherError: the VAE is not loaded.
    """
    view = teacher_view(base, teacher.resolution_px)

    def load(index: int) -> tuple[Tensor, Tensor]:
        image = pairs.image(index)
        return base.preprocess(image), view(image)

    # In the order of the first epoch: the first images of a folder sorted by class would be of few classes.
    chosen = torch.from_numpy(order(len(pairs), config.seed, epoch=0)[: config.ridge_images])
    features: list[Tensor] = []
    latents: list[Tensor] = []
    done = 0
    between(done, len(chosen))
    with ThreadPoolExecutor(config.workers) as pool:
        for indices in torch.split(chosen, config.batch_size):
            pixels, views = zip(*pool.map(load, indices.tolist()), strict=True)
            features.append(base.encode_image(torch.stack(pixels), normalize=False))
            # The VAE's own parts, since a batch takes it minutes on a CPU.
            for part in torch.split(torch.stack(views), teacher.images_at_once):
                latents.append(teacher.encode_image(part))
                done += len(part)
                between(done, len(chosen))
    return Mapper.from_ridge(
        torch.cat(features), torch.cat(latents), ridge=config.ridge, input=config.mapper_input
    )
