"""open_clip's inference transform, with the arithmetic of its last two steps in numpy (decision 7).

torch would start a team of threads for each image, in every decoding thread at once, and starve the forward
pass. numpy computes the same numbers, bit for bit, in the calling thread.
"""

from collections.abc import Callable

import numpy as np
import PIL.Image
import torch
from jaxtyping import Float
from torch import Tensor
from torchvision.transforms import Compose, Normalize, ToTensor


class Preprocess:
    """Resize, crop and normalise an image as `transform`, made by open_clip, does.

    Raises ValueError for a transform that does not end with ToTensor and Normalize.
    """

    def __init__(self, transform: Compose) -> None:
        *geometry, to_tensor, normalize = transform.transforms
        if not (isinstance(to_tensor, ToTensor) and isinstance(normalize, Normalize)):
            raise ValueError(f"the transform does not end with ToTensor and Normalize: {transform}")
        self._geometry: list[Callable[[PIL.Image.Image], PIL.Image.Image]] = geometry
        self._mean = np.asarray(normalize.mean, dtype=np.float32)[:, None, None]
        self._std = np.asarray(normalize.std, dtype=np.float32)[:, None, None]

    def __call__(self, image: PIL.Image.Image) -> Float[Tensor, "3 h w"]:
        """Return ((pixel / 255) - mean) / std in float32 on the CPU."""
        for step in self._geometry:
            image = step(image)
        pixels = np.asarray(image).transpose(2, 0, 1).astype(np.float32, order="C")
        pixels /= np.float32(255)
        pixels -= self._mean
        pixels /= self._std
        return torch.from_numpy(pixels)
