"""Scale gradients so that a float16 network can carry them."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor


def with_scaled_gradient(
    network: Callable[[Float[Tensor, "b c h w"]], Float[Tensor, "b c h w"]],
    values: Float[Tensor, "b c h w"],
) -> Float[Tensor, "b c h w"]:
    """Return network(values). Inside the network, the gradient is divided by its largest entry.

    The gradient of a mean over a batch's latents is near 1e-6 per element. float16 rounds that to steps of
    6e-8, and what the layers make smaller to 0. The division is undone on `values`, so apart from rounding
    the gradient is the same. Outside the network it is float32.
    """
    largest = torch.ones((), device=values.device)

    def enlarge(gradient: Tensor) -> Tensor:
        nonlocal largest
        largest = gradient.abs().amax().clamp(min=torch.finfo(torch.float32).tiny)
        return gradient / largest

    entering = values.view_as(values)  # a separate tensor, so that its hook sees no other use of `values`
    output = network(entering)
    if entering.requires_grad:
        output.register_hook(enlarge)  # type: ignore[no-untyped-call]
        entering.register_hook(lambda gradient: gradient * largest)  # type: ignore[no-untyped-call]
    return output
