"""h_w: the linear map from CLIP image embeddings to an input of the teacher. It is dropped after training."""

import math
from typing import ClassVar, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sds_clip.models.choices import MapperInput
from sds_clip.models.errors import ModelError


class MapperError(ModelError):
    """A mapper has an unknown option, or cannot be fitted to the data."""

    code: ClassVar[str] = "bad_mapper"


class Mapper(nn.Module):
    """W f + b in the shape of a latent or of a caption's tokens, computed in float32 whatever autocast is active."""

    def __init__(
        self, embed_dim: int, shape: tuple[int, ...], *, input: str = "normalized", seed: int = 0
    ) -> None:
        """Initialise W and b as nn.Linear does, as a pure function of `seed`.

        Both are uniform in [-1 / sqrt(embed_dim), 1 / sqrt(embed_dim)]. `normalized` maps the L2-normalised
        embedding, `raw` the embedding as it is.

        Raises MapperError for another input.
        """
        super().__init__()
        if input not in get_args(MapperInput):
            raise MapperError(
                f"The mapper's input cannot be {input!r}; use {' or '.join(get_args(MapperInput))}."
            )
        self.input = input
        self.shape = shape
        # Made on "meta", so that nn.Linear's own start does not draw from the global generator.
        self.linear = nn.Linear(embed_dim, math.prod(shape), device="meta").to_empty(device="cpu")
        generator = torch.Generator().manual_seed(seed)
        bound = 1 / math.sqrt(embed_dim)
        for parameter in (self.linear.weight, self.linear.bias):
            nn.init.uniform_(parameter, -bound, bound, generator=generator)

    @classmethod
    def from_ridge(
        cls,
        features: Float[Tensor, "n d"],
        latents: Float[Tensor, "n c h w"],
        *,
        ridge: float,
        input: str = "normalized",
    ) -> "Mapper":
        """Return the mapper that fits the latents best. `features` are not normalised, as in `forward`.

        Raises MapperError as `ridge_fit` does.
        """
        mapper = cls(features.shape[1], (latents.shape[1], latents.shape[2], latents.shape[3]), input=input)
        weight, bias = ridge_fit(mapper.prepare(features), latents, ridge)
        with torch.no_grad():
            mapper.linear.weight.copy_(weight)
            mapper.linear.bias.copy_(bias)
        return mapper

    def forward(self, image_features: Float[Tensor, "b d"]) -> Float[Tensor, "b ..."]:
        """Map un-normalised image features. Gradients go to the features and to W and b."""
        with torch.autocast(image_features.device.type, enabled=False):
            mapped: Tensor = self.linear(self.prepare(image_features))
        return mapped.reshape(-1, *self.shape)

    def prepare(self, image_features: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
        """Return what W is multiplied with: float32 features, normalised if the input is `normalized`."""
        features = image_features.float()
        return F.normalize(features, dim=-1) if self.input == "normalized" else features


def ridge_fit(
    features: Float[Tensor, "n d"], latents: Float[Tensor, "n c h w"], ridge: float
) -> tuple[Float[Tensor, "p d"], Float[Tensor, "p"]]:
    """Return W and b that minimise sum_i || W f_i + b - z_i ||^2 + ridge ||W||^2.

    The bias is not penalised, so with X and Z centred, W^T = (X^T X + ridge I)^-1 X^T Z and
    b = mean(z) - W mean(f). `features` are what W is multiplied with; see `Mapper.prepare`. It is computed in
    float64, without gradients.

    Raises MapperError for a ridge that is not positive, no samples, or a result that is not finite.
    """
    if not ridge > 0:
        raise MapperError(f"The ridge is {ridge}; it must be positive, or the fit is not unique.")
    if not len(features) or len(features) != len(latents):
        raise MapperError(
            f"The mapper cannot be fitted to {len(features)} features and {len(latents)} latents; "
            "give one latent for each feature vector, and at least one pair."
        )
    x, z = features.detach().double(), latents.detach().flatten(1).double()
    mean_x, mean_z = x.mean(dim=0), z.mean(dim=0)
    x, z = x - mean_x, z - mean_z
    penalty = ridge * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    weight = torch.linalg.solve(x.T @ x + penalty, x.T @ z).T
    bias = mean_z - weight @ mean_x
    if not (weight.isfinite().all() and bias.isfinite().all()):
        raise MapperError("The fitted mapper is not finite; check the student's features and the latents.")
    return weight, bias
