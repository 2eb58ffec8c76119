"""The text tower without the padding behind the longest text: the same features and gradients, for less work.

CLIP's texts have 77 tokens, and most of them are padding. Under a causal mask no token sees a later one, and a text's
feature is that of its end token. So nothing depends on what follows the last end of a batch.
"""

from typing import Any

from jaxtyping import Float, Int
from open_clip.model import CLIP
from open_clip.transformer import text_global_pool
from torch import Tensor, nn


def without_padding(network: nn.Module, tokens: Int[Tensor, "n context"]) -> Int[Tensor, "n length"]:
    """Leave out the last columns of tokens that no text reaches, if `encode_text` can do without them.

    Tokens on the CPU spare the wait for a device.
    """
    clip: Any = _computing(network)
    if not len(tokens) or not _needs_no_padding(clip):
        return tokens
    marks = tokens == clip.text_eos_id if clip.text_pool_type == "eos" else tokens
    return tokens[:, : int(marks.int().argmax(dim=-1).max()) + 1]


def encode_text(network: nn.Module, tokens: Int[Tensor, "n length"]) -> Float[Tensor, "n d"]:
    """Encode texts as `network.encode_text` does, without normalising. Their context may be shorter."""
    clip: Any = network
    if not _needs_no_padding(clip):
        whole: Tensor = clip.encode_text(tokens, normalize=False)
        return whole
    length, dtype = tokens.shape[1], clip.transformer.get_cast_dtype()
    embedded = clip.token_embedding(tokens).to(dtype) + clip.positional_embedding[:length].to(dtype)
    states = clip.ln_final(clip.transformer(embedded, attn_mask=clip.attn_mask[:length, :length]))
    features: Tensor = text_global_pool(states, tokens, clip.text_pool_type, eos_token_id=clip.text_eos_id)
    projection = clip.text_projection
    if projection is not None:
        features = projection(features) if isinstance(projection, nn.Linear) else features @ projection
    return features


def _computing(network: nn.Module) -> nn.Module:
    """What computes for a version that shares batches (`sds_clip.models.clip.mixed.Member`), or the network itself."""
    return getattr(network, "computing", network)


def _needs_no_padding(network: nn.Module) -> bool:
    """Whether it is open_clip's plain CLIP, with a causal mask and the feature of the end token."""
    return (
        isinstance(network, CLIP)
        and network.attn_mask is not None
        and network.text_pool_type in ("argmax", "eos")
    )
