"""Weights in the layout that the processor's kernels read, so that no product reorders them first.

oneDNN and MKL copy a weight into a layout of their own at every call. A packed weight is such a copy that stays. It is
an attribute of its parameter: versions over one base share the base's packs, a parameter with another value has none
and is multiplied as before, and a pack goes when its parameter does.
"""

import logging
import math
import platform
from dataclasses import replace
from functools import cache
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sds_clip.models.clip.attention import BatchFirstAttention
from sds_clip.models.clip.mixed import Member, as_member
from sds_clip.models.clip.model import Clip
from sds_clip.models.clip.precision import DTYPES
from sds_clip.models.clip.sharing import bytes_apart, share
from sds_clip.models.errors import first_line

logger = logging.getLogger(__name__)


def to_serve(clip: Clip) -> Clip:
    """Return the same version as a server holds it: packed where that is possible, and as a member of its family.

    A packed weight takes the place of the one that was loaded, unless the network reads that one itself. A delta is
    laid over it as a whole: with alpha, it would be blended with what is not there any more.
    """
    packed = pack(clip, keep=False)
    return as_member(packed if packed is clip or _computes(packed) else pack(clip))


def pack(clip: Clip, *, keep: bool = True) -> Clip:
    """Return the same version with packed weights, or as it is where that is not possible.

    In bfloat16 its features are equal to the last bit, in float32 nearly. The network is a copy that shares every
    parameter, or, without `keep`, those that are not packed. It computes only without gradients.
    """
    dtype = DTYPES[clip.precision]
    if clip.device.type != "cpu" or isinstance(clip.network, Member) or not _can_pack(dtype):
        return clip
    before = bytes_apart([clip.network], [])
    try:
        network = share(clip.network)
    except TypeError as error:  # of a lock, for instance
        logger.info("The weights of %s are not packed: %s", clip.reference, first_line(error))
        return clip
    projections = _text_projections(network)
    for module in list(network.modules()):
        if dtype is torch.float32 and type(module) is nn.Sequential:
            _fuse_gelu(module)
        if any(module is projection for projection in projections):
            continue
        module.__class__ = _KINDS.get(type(module), type(module))
        name = "in_proj_weight" if isinstance(module, _Attention) else "weight"
        weight: Any = (
            getattr(module, name) if isinstance(module, _Linear | _LinearGelu | _Attention) else None
        )
        if weight is not None and weight.dtype is dtype:
            held = weight if keep else _without_values(weight)
            held.packed = weight.packed if hasattr(weight, "packed") else _packed(weight)
            setattr(module, name, held)
    size_bytes = clip.size_bytes + bytes_apart([network], []) - before
    return replace(clip, network=network, packed=True, size_bytes=size_bytes)


def _text_projections(network: Any) -> tuple[Any, ...]:
    """The matrix with which the text tower ends. A family multiplies by it apart, since versions may have their own."""
    tower = getattr(network, "text", network)
    return getattr(tower, "proj", None), getattr(tower, "text_projection", None)


def _without_values(weight: Tensor) -> Any:
    """Return a parameter of the same shape that takes no memory. Whatever reads it computes NaN."""
    return nn.Parameter(weight.new_full((), math.nan).expand(weight.shape), requires_grad=False)


def _computes(clip: Clip) -> bool:
    """Whether no layer reads a weight that is there only as a pack."""
    images, texts = torch.zeros(1, 3, *clip.image_size), torch.full((1, clip.context_length), 2)
    return bool(clip.encode_image(images).isfinite().all() and clip.encode_text(texts).isfinite().all())


def _packed(weight: Tensor) -> Tensor:
    with torch.no_grad():
        packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight)
    return packed


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None, *, gelu: bool = False) -> Tensor:
    packed: Tensor | None = getattr(weight, "packed", None)
    if packed is None:
        plain = F.linear(x, weight, bias)
        return F.gelu(plain) if gelu else plain
    product: Tensor = torch.ops.mkldnn._linear_pointwise(
        x, packed, bias, "gelu" if gelu else "none", [], "none"
    )
    return product


class _Linear(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return _linear(x, self.weight, self.bias)


class _LinearGelu(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return _linear(x, self.weight, self.bias, gelu=True)

    def before_gelu(self, x: Tensor) -> Tensor:
        return _linear(x, self.weight, self.bias)


class _Attention(BatchFirstAttention):
    def project_in(self, x: Tensor) -> Tensor:
        return _linear(x, self.in_proj_weight, self.in_proj_bias)


_KINDS: dict[type, Any] = {
    nn.Linear: _Linear,
    nn.modules.linear.NonDynamicallyQuantizableLinear: _Linear,  # the output of an attention
    BatchFirstAttention: _Attention,
}


def _fuse_gelu(layers: nn.Sequential) -> None:
    """Compute each GELU with the product before it, which spares float32 a pass through memory.

    In bfloat16 it would gain nothing, and round elsewhere than before.
    """
    for place, (layer, following) in enumerate(pairwise(list(layers))):
        if type(layer) is nn.Linear and type(following) is nn.GELU and following.approximate == "none":
            layer.__class__ = _LinearGelu
            layers[place + 1] = nn.Identity()


@cache
def _can_pack(dtype: torch.dtype) -> bool:
    """Whether torch computes the same with packed weights on this machine. It is logged once."""
    try:
        reason = _trial(dtype)
    except (AttributeError, RuntimeError, TypeError) as error:  # torch's operators for it are not public
        reason = first_line(error)
    logger.info("Weights in %s are %s.", dtype, f"not packed: {reason}" if reason else "packed")
    return not reason


def _trial(dtype: torch.dtype) -> str:
    """Return why weights are not packed here, if so."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return "whether this is faster was measured on x86 alone"
    if not torch.backends.mkldnn.enabled:
        return "oneDNN is switched off"
    values = torch.linspace(-2, 2, 96 * 64).sin().to(dtype).view(96, 64)
    x, weight, bias = values[:32], nn.Parameter(values[32:], requires_grad=False), values[0]
    plain = _linear(x, weight, bias), _linear(x, weight, bias, gelu=True)
    setattr(weight, "packed", _packed(weight))  # noqa: B010
    packed = _linear(x, weight, bias), _linear(x, weight, bias, gelu=True)
    tolerance = 32 * torch.finfo(dtype).eps
    agree = all(torch.allclose(*pair, tolerance, tolerance) for pair in zip(plain, packed, strict=True))
    return "" if agree else "torch computes something else with them"
