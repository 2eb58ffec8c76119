"""The teacher's VAE input: the image cropped as for the student, at the teacher's size, in [-1, 1]."""

from typing import Any

from open_clip.transform import PreprocessCfg, image_transform_v2

from sds_clip.models.clip.model import Clip
from sds_clip.models.clip.preprocess import Preprocess


def teacher_view(base: Clip, resolution_px: int) -> Preprocess:
    """Return the transform from an image to the VAE's input: the student's crop, at the teacher's size."""
    network: Any = base.network
    preprocess = network.visual.preprocess_cfg
    how = {name: preprocess[name] for name in ("resize_mode", "interpolation", "fill_color")}
    return teacher_preprocess(resolution_px, **how)


def teacher_preprocess(
    resolution_px: int, *, resize_mode: str = "shortest", interpolation: str = "bicubic", fill_color: int = 0
) -> Preprocess:
    """Return open_clip's inference transform to `resolution_px`, ending with (pixel / 255 - 0.5) / 0.5.

    With the student's `resize_mode`, `interpolation` and `fill_color`, student and teacher see the same crop.
    """
    config = PreprocessCfg(
        size=resolution_px,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        interpolation=interpolation,
        resize_mode=resize_mode,
        fill_color=fill_color,
    )
    return Preprocess(image_transform_v2(config, is_train=False))
