"""Scale gradients so that a float16 network can carry them."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from sds_clip.models.shapes import Maps


def with_scaled_gradient(network: Callable[..., Maps], *inputs: Float[Tensor, "b ..."]) -> Maps:
    """Return network(*inputs). Inside the network, the gradient is divided by its largest entry.

    The gradient of a mean over a batch's latents is near 1e-6 per element. float16 rounds that to steps of
    6e-8, and what the layers make smaller to 0. The division is undone on the inputs, so apart from rounding
    the gradient is the same. Outside the network it is float32.
    """
    largest = torch.ones((), device=inputs[0].device)

    def enlarge(gradient: Tensor) -> Tensor:
        nonlocal largest
        largest = gradient.abs().amax().clamp(min=torch.finfo(torch.float32).tiny)
        return gradient / largest

    entering = [values.view_as(values) for values in inputs]  # so that a hook sees no other use of an input
    output = network(*entering)
    differentiated = [values for values in entering if values.requires_grad]
    if differentiated:
        output.register_hook(enlarge)  # type: ignore[no-untyped-call]
    for values in differentiated:
        values.register_hook(lambda gradient: gradient * largest)  # type: ignore[no-untyped-call]
    return output
