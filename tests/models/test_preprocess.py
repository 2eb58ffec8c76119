import numpy as np
import PIL.Image
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from torchvision.transforms import Compose, ToTensor

from sds_clip.models.clip.preprocess import Preprocess


@pytest.mark.parametrize("resize_mode", ["shortest", "squash", "longest"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [(224, 224), (33, 70), (500, 37), (1, 1)])
def test_pixels_equal_open_clips_to_the_last_bit(
    resize_mode: str, interpolation: str, size: tuple[int, int]
) -> None:
    transform = image_transform_v2(
        PreprocessCfg(size=64, resize_mode=resize_mode, interpolation=interpolation), is_train=False
    )
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    image = PIL.Image.fromarray(pixels)
    assert torch.equal(Preprocess(transform)(image), transform(image))


def test_a_transform_that_does_not_normalise_is_refused() -> None:
    with pytest.raises(ValueError, match="ToTensor and Normalize"):
        Preprocess(Compose([PIL.Image.Image.copy, ToTensor()]))
