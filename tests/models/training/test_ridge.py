"""The fit of the mapper: what it tells, and that its parts and threads change no bit of it."""

import pytest
import torch

from sds_clip.models.data.batches import order
from sds_clip.models.mapper import Mapper
from sds_clip.models.teacher import teacher as teachers
from sds_clip.models.teacher.pixels import teacher_view
from sds_clip.models.training.parts import Parts
from sds_clip.models.training.ridge import ridge_mapper
from tests.training import configure


@pytest.mark.parametrize("workers", [1, 4])
def test_the_fit_is_that_of_whole_batches_encoded_one_after_another(
    workers: int, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert parts.teacher is not None
    # Three images at a time, as the VAE takes large ones.
    monkeypatch.setattr(teachers, "_CPU_PIXELS_AT_ONCE", 3 * parts.teacher.resolution_px**2)
    config = configure(mapper_start="ridge", ridge_images=20, workers=workers)
    view = teacher_view(parts.base, parts.teacher.resolution_px)
    features, latents = [], []
    for indices in torch.split(torch.from_numpy(order(len(parts.pairs), config.seed, epoch=0)[:20]), 8):
        images = [parts.pairs.image(int(index)) for index in indices]
        pixels = torch.stack([parts.base.preprocess(image) for image in images])
        features.append(parts.base.encode_image(pixels, normalize=False))
        latents.append(parts.teacher.encode_image(torch.stack([view(image) for image in images])))
    expected = Mapper.from_ridge(
        torch.cat(features), torch.cat(latents), ridge=config.ridge, input=config.mapper_input
    )

    told: list[tuple[int, int]] = []
    found = ridge_mapper(
        config, parts.base, parts.teacher, parts.pairs, lambda done, total: told.append((done, total))
    )

    for name, value in expected.state_dict().items():
        assert torch.equal(found.state_dict()[name], value)
    assert told == [(done, 20) for done in (0, 3, 6, 8, 11, 14, 16, 19, 20)]
