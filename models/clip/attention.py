"""Self-attention for open_clip's towers without the transposes of torch's own module."""

from typing import Any

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class BatchFirstAttention(nn.MultiheadAttention):
    """torch's attention for one contiguous [n, l, d] input, as two matrix products around a fused kernel.

    nn.MultiheadAttention transposes its input to sequence-first. For such a view, torch copies frozen weights
    once per position before it multiplies. With the text tower's mask no fast path avoids this. The copies cost
    many times as much as the product itself. Parameters, their names and results are the parent's. Anything but
    plain self-attention is passed to the parent.
    """

    def forward(  # type: ignore[override]
        self,
        query: Float[Tensor, "n l d"],
        key: Tensor,
        value: Tensor,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        **options: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """softmax(Q K^t / sqrt(d / heads) + mask) V for all heads, projected (arXiv 1706.03762, eq. 1)."""
        mask_is_plain = attn_mask is None or (attn_mask.dim() == 2 and attn_mask.is_floating_point())
        self_attention = key is query and value is query
        if need_weights or options or self.training or not (self_attention and mask_is_plain):
            return super().forward(
                query, key, value, need_weights=need_weights, attn_mask=attn_mask, **options
            )
        n, length, width = query.shape
        projected = self.project_in(query)
        q, k, v = projected.view(n, length, 3, self.num_heads, width // self.num_heads).permute(2, 0, 3, 1, 4)
        heads = F.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask)
        return self.out_proj(heads.transpose(1, 2).reshape(n, length, width)), None

    def project_in(self, x: Float[Tensor, "n l d"]) -> Float[Tensor, "n l e"]:
        return F.linear(x, self.in_proj_weight, self.in_proj_bias)


def attend_batch_first(network: nn.Module) -> nn.Module:
    """Switch every plain attention module of a network, in place, to BatchFirstAttention."""
    for module in network.modules():
        if type(module) is nn.MultiheadAttention and _plain(module):
            # The class is swapped in place so that parameters, their names and hooks stay (decision 5).
            module.__class__ = BatchFirstAttention
    return network


def _plain(attention: nn.MultiheadAttention) -> bool:
    return (
        attention.batch_first
        and attention._qkv_same_embed_dim
        and attention.bias_k is None
        and not attention.add_zero_attn
    )
