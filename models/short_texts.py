"""The text tower without the padding behind the longest text: the same features and gradients, for less work.

CLIP's texts have 77 tokens, and most of them are padding. Under a causal mask no token sees a later one, and a text's
feature is that of its end token. So nothing depends on what follows the last end of a batch.
"""

from __future__ import annotations

from typing import Any

from jaxtyping import Float, Int
from open_clip.model import CLIP
from open_clip.transformer import text_global_pool
from torch import Tensor, nn


def encode_text(network: nn.Module, tokens: Int[Tensor, "n context"]) -> Float[Tensor, "n d"]:
    """Encode texts as `network.encode_text` does, without normalising. The padding that no text reaches is left out."""
    clip: Any = network
    if not _needs_no_padding(network) or not len(tokens):
        whole: Tensor = clip.encode_text(tokens, normalize=False)
        return whole
    length, dtype = _longest(clip, tokens), clip.transformer.get_cast_dtype()
    tokens = tokens[:, :length]
    embedded = clip.token_embedding(tokens).to(dtype) + clip.positional_embedding[:length].to(dtype)
    states = clip.ln_final(clip.transformer(embedded, attn_mask=clip.attn_mask[:length, :length]))
    features: Tensor = text_global_pool(states, tokens, clip.text_pool_type, eos_token_id=clip.text_eos_id)
    projection = clip.text_projection
    if projection is not None:
        features = projection(features) if isinstance(projection, nn.Linear) else features @ projection
    return features


def _needs_no_padding(network: nn.Module) -> bool:
    """Whether it is open_clip's plain CLIP, with a causal mask and the feature of the end token."""
    return (
        isinstance(network, CLIP)
        and network.attn_mask is not None
        and network.text_pool_type in ("argmax", "eos")
    )


def _longest(clip: Any, tokens: Int[Tensor, "n context"]) -> int:
    """The number of tokens up to the last end of a text."""
    if tokens.is_meta:
        return tokens.shape[1]
    marks = tokens == clip.text_eos_id if clip.text_pool_type == "eos" else tokens
    return int(marks.int().argmax(dim=-1).max()) + 1
