"""What of a CLIP is trained: its LayerNorms, its BatchNorms where it has no others, or everything."""

from collections.abc import Iterable
from typing import Any, ClassVar

from torch import nn

from models.errors import ModelError

TRAINABLE = ("layernorm", "batchnorm", "all")

_BatchNorm = nn.modules.batchnorm._BatchNorm


class StudentError(ModelError):
    """A CLIP that cannot be trained as asked."""

    code: ClassVar[str] = "bad_student"


def trainable_parameters(network: nn.Module, which: str = "layernorm") -> dict[str, nn.Parameter]:
    """Freeze a CLIP in place but for the parameters that are returned, by name, in the network's order.

    - `layernorm`: weights and biases of every LayerNorm of both towers, as arXiv 2307.09233 has it.
    - `batchnorm`: those, and the image tower's BatchNorm weights and biases.
    - `all`: every parameter, logit_scale and logit_bias included.

    The network is put in eval mode and is meant to stay there: no dropout, and BatchNorms keep the running
    statistics that they were trained with.

    Raises StudentError for another choice, and where the image tower has no parameter of that kind: L_SDS
    would reach nothing but the mapper.
    """
    if which not in TRAINABLE:
        raise StudentError(f"There is no choice {which!r} of what to train; use {', '.join(TRAINABLE)}.")
    image_tower: Any = network.visual
    if which == "all":
        chosen = {id(parameter) for parameter in network.parameters()}
    else:
        chosen = _affine(network.modules(), nn.LayerNorm)
        batch_norms = _affine(image_tower.modules(), _BatchNorm)
        if which == "batchnorm":
            _require(batch_norms, "BatchNorm", "train layernorm or all")
            chosen |= batch_norms
        else:
            hint = "train batchnorm (its BatchNorm weights and biases)" if batch_norms else "train all"
            _require(_affine(image_tower.modules(), nn.LayerNorm), "LayerNorm", hint)
    for parameter in network.parameters():
        parameter.requires_grad_(id(parameter) in chosen)
    network.eval()
    return {name: parameter for name, parameter in network.named_parameters() if id(parameter) in chosen}


def _affine(modules: Iterable[nn.Module], kind: type[nn.Module]) -> set[int]:
    """Identities of the weights and biases of the layers of a kind, its subclasses included."""
    return {
        id(parameter)
        for module in modules
        if isinstance(module, kind)
        for parameter in module.parameters(recurse=False)
    }


def _require(found: set[int], kind: str, remedy: str) -> None:
    if not found:
        raise StudentError(
            f"This CLIP's image tower has no {kind} with weights, so that the distillation would train only "
            f"the mapper; {remedy} instead, or choose another base."
        )
