"""An image as the teacher's VAE takes it: cropped as the student's, at its own size, in [-1, 1]."""

from open_clip.transform import PreprocessCfg, image_transform_v2

from models.preprocess import Preprocess


def teacher_preprocess(
    resolution_px: int, *, resize_mode: str = "shortest", interpolation: str = "bicubic", fill_color: int = 0
) -> Preprocess:
    """open_clip's inference transform to `resolution_px`, with (pixel / 255 - 0.5) / 0.5 at its end.

    With the student's `resize_mode`, `interpolation` and `fill_color`, student and teacher see one crop.
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
