"""Which parameters of a CLIP are trained."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, get_args

from torch import nn

from sds_clip.models.choices import Trainable
from sds_clip.models.clip.precision import is_layer_norm
from sds_clip.models.errors import ModelError

_BatchNorm = nn.modules.batchnorm._BatchNorm


class StudentError(ModelError):
    """A CLIP cannot be trained as asked."""

    code: ClassVar[str] = "bad_student"


def trainable_parameters(network: nn.Module, which: str = "layernorm") -> dict[str, nn.Parameter]:
    """Freeze a CLIP in place, except the parameters that `chosen_parameters` returns.

    The network is put in eval mode and must stay there: no dropout, and BatchNorms keep the running
    statistics that they were trained with.
    """
    chosen = chosen_parameters(network, which)
    network.requires_grad_(False).eval()
    for parameter in chosen.values():
        parameter.requires_grad_(True)
    return chosen


def chosen_parameters(network: nn.Module, which: str = "layernorm") -> dict[str, nn.Parameter]:
    """Return the parameters that are trained, by name and in the network's order.

    - `layernorm`: weights and biases of every LayerNorm of both towers, as in arXiv 2307.09233. RMSNorms,
      which T5's text towers have instead, count as LayerNorms.
    - `batchnorm`: those, and the image tower's BatchNorm weights and biases.
    - `all`: every parameter, including logit_scale and logit_bias.
    - `text-map` and `lora`: none of the network's own. `sds_clip.models.clip.text_map` and `sds_clip.models.clip.lora`
      have what is trained instead.

    Raises StudentError for another choice, and if a tower has no parameter of that kind and so would stay as
    it is. Without trained parameters in the image tower, L_SDS would reach nothing but the mapper.
    """
    if which not in get_args(Trainable):
        raise StudentError(
            f"The trained parameters cannot be {which!r}; use {', '.join(get_args(Trainable))}."
        )
    image_tower: Any = network.visual
    if which in ("text-map", "lora"):
        chosen = set[int]()
    elif which == "all":
        chosen = {id(parameter) for parameter in network.parameters()}
    else:
        chosen = _affine(network.modules(), is_layer_norm)
        of_image_tower = _affine(image_tower.modules(), is_layer_norm)
        batch_norms = _affine(image_tower.modules(), lambda module: isinstance(module, _BatchNorm))
        only_mapper = "the distillation would train only the mapper"
        if which == "batchnorm":
            _require(batch_norms, "image tower has no BatchNorm", only_mapper, "train layernorm or all")
        else:
            hint = "train batchnorm (its BatchNorm weights and biases)" if batch_norms else "train all"
            _require(of_image_tower, "image tower has no LayerNorm", only_mapper, hint)
        _require(
            chosen - of_image_tower, "text tower has no LayerNorm", "it would not be trained", "train all"
        )
        if which == "batchnorm":
            chosen |= batch_norms
    return {name: parameter for name, parameter in network.named_parameters() if id(parameter) in chosen}


def summary(network: nn.Module, parameters: Mapping[str, nn.Parameter]) -> str:
    """Return how many numbers are trained, and in how many modules of each kind: "39,936 numbers of 52 LayerNorm"."""
    chosen = {id(parameter) for parameter in parameters.values()}
    kinds = Counter(
        type(module).__name__
        for module in network.modules()
        if any(id(parameter) in chosen for parameter in module.parameters(recurse=False))
    )
    modules = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    return f"{sum(parameter.numel() for parameter in parameters.values()):,} numbers of {modules}"


def _affine(modules: Iterable[nn.Module], is_kind: Callable[[nn.Module], bool]) -> set[int]:
    return {
        id(parameter)
        for module in modules
        if is_kind(module)
        for parameter in module.parameters(recurse=False)
    }


def _require(found: set[int], fault: str, consequence: str, remedy: str) -> None:
    if not found:
        raise StudentError(
            f"This CLIP's {fault} with weights, so {consequence}. Choose another base, or {remedy} instead."
        )
