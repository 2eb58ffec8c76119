from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from sds_clip.models.checkpoints.load import load_clip
from sds_clip.models.teacher.pixels import teacher_preprocess, teacher_view


def picture(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("resize_mode", "fill_color"), [("shortest", 0), ("squash", 0), ("longest", 0), ("longest", 200)]
)
def test_teacher_sees_the_student_s_crop_in_minus_one_to_one(resize_mode: str, fill_color: int) -> None:
    image = picture(50, 40)
    mean, std = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)
    how: dict[str, Any] = {"interpolation": "bicubic", "resize_mode": resize_mode, "fill_color": fill_color}
    config = PreprocessCfg(size=32, mean=mean, std=std, **how)
    student = image_transform_v2(config, is_train=False)(image)
    in_0_to_1 = student * torch.tensor(std)[:, None, None] + torch.tensor(mean)[:, None, None]
    pixels = teacher_preprocess(32, **how)(image)
    torch.testing.assert_close(pixels, 2 * in_0_to_1 - 1, rtol=0, atol=1e-5)
    assert pixels.min() >= -1
    assert pixels.max() <= 1


def test_black_is_minus_one_and_white_is_one() -> None:
    for colour, value in (("black", -1.0), ("white", 1.0)):
        assert torch.equal(
            teacher_preprocess(8)(Image.new("RGB", (9, 8), colour)), torch.full((3, 8, 8), value)
        )


def test_the_teacher_sees_the_student_s_crop(tiny_folder: Path) -> None:
    base = load_clip(f"local-dir:{tiny_folder}", device="cpu", precision="float32")
    visual: Any = base.network.visual
    visual.preprocess_cfg = visual.preprocess_cfg | {"resize_mode": "longest", "fill_color": 255}
    view = teacher_view(base, 16)(Image.new("RGB", (8, 4)))
    assert view[0, :, 8].tolist() == [1.0] * 4 + [-1.0] * 8 + [1.0] * 4
