"""The names of the tensors of open_clip's models and of transformers', in one table that is read both ways."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

_PARTS = {
    ".layer_norm1.": ".ln_1.",
    ".layer_norm2.": ".ln_2.",
    ".self_attn.out_proj.": ".attn.out_proj.",
    ".mlp.fc1.": ".mlp.c_fc.",
    ".mlp.fc2.": ".mlp.c_proj.",
}
_TIMM_PARTS = {
    ".layer_norm1.": ".norm1.",
    ".layer_norm2.": ".norm2.",
    ".self_attn.out_proj.": ".attn.proj.",
}
# The matrices of queries, keys and values are three in transformers. open_clip and timm have one.
_JOINED = re.compile(r"(.*)\.attn\.(?:in_proj_|qkv\.)(weight|bias)")
_APART = re.compile(r"(.*)\.self_attn\.[qkv]_proj\.(weight|bias)")
# In the attention that pools, timm has two, of queries, and of keys and values. transformers has one.
_POOL, _THEIR_POOL = "visual.trunk.attn_pool", "vision_model.head.attention"


@dataclass(frozen=True)
class Names:
    """How transformers' names begin, in which parts of a block they differ, and what open_clip calls both."""

    places: Mapping[str, str]
    parts: tuple[Mapping[str, str], ...] = (_PARTS,)
    transposed: Mapping[str, str] = field(default_factory=dict)
    """Matrices that are multiplied from the left there, and from the right here."""

    def from_transformers(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rename a model whose towers are both open_clip's own; a name that is not known stays."""
        renamed: dict[str, Tensor] = {}
        for name, value in weights.items():
            if apart := _APART.fullmatch(name):
                parts = [f"{apart[1]}.self_attn.{letter}_proj.{apart[2]}" for letter in "qkv"]
                joined = torch.cat([weights[part] for part in parts if part in weights])
                renamed[f"{self._ours(apart[1] + '.')}attn.in_proj_{apart[2]}"] = joined
            elif name in self.transposed:
                renamed[self.transposed[name]] = value.T
            else:
                renamed[self._ours(name)] = value
        return renamed

    def to_transformers(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rename open_clip's tensors; a name that transformers' model does not have stays."""
        renamed: dict[str, Tensor] = {}
        transposed = {ours: theirs for theirs, ours in self.transposed.items()}
        places = {ours: theirs for theirs, ours in self.places.items()}
        parts = {ours: theirs for table in self.parts for theirs, ours in table.items()}
        for name, value in weights.items():
            if name.startswith((f"{_POOL}.q.", f"{_POOL}.kv.")):
                kind = name.rpartition(".")[2]
                if name.startswith(f"{_POOL}.q."):
                    both = torch.cat([value, weights[f"{_POOL}.kv.{kind}"]])
                    renamed[f"{_THEIR_POOL}.in_proj_{kind}"] = both
            elif joined := _JOINED.fullmatch(name):
                block = _renamed(joined[1], places, parts)
                for letter, part in zip("qkv", value.chunk(3), strict=True):
                    renamed[f"{block}.self_attn.{letter}_proj.{joined[2]}"] = part
            elif name in transposed:
                renamed[transposed[name]] = value.T
            else:
                renamed[_renamed(name, places, parts)] = value
        return renamed

    def _ours(self, name: str) -> str:
        return _renamed(name, self.places, self.parts[0])


def _renamed(name: str, places: Mapping[str, str], parts: Mapping[str, str]) -> str:
    for before, after in places.items():
        if name.startswith(before):
            name = after + name.removeprefix(before)
            break
    for before, after in parts.items():
        name = name.replace(before, after)
    return name


CLIP = Names(
    places={
        "vision_model.embeddings.class_embedding": "visual.class_embedding",
        "vision_model.embeddings.patch_embedding.": "visual.conv1.",
        "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
        "vision_model.pre_layrnorm.": "visual.ln_pre.",
        "vision_model.post_layernorm.": "visual.ln_post.",
        "vision_model.encoder.layers.": "visual.transformer.resblocks.",
        "text_model.embeddings.token_embedding.": "token_embedding.",
        "text_model.embeddings.position_embedding.weight": "positional_embedding",
        "text_model.final_layer_norm.": "ln_final.",
        "text_model.encoder.layers.": "transformer.resblocks.",
    },
    transposed={"visual_projection.weight": "visual.proj", "text_projection.weight": "text_projection"},
)
SIGLIP = Names(
    places={
        "vision_model.embeddings.patch_embedding.": "visual.trunk.patch_embed.proj.",
        "vision_model.embeddings.position_embedding.weight": "visual.trunk.pos_embed",
        "vision_model.encoder.layers.": "visual.trunk.blocks.",
        "vision_model.post_layernorm.": "visual.trunk.norm.",
        "vision_model.head.probe": "visual.trunk.attn_pool.latent",
        "vision_model.head.attention.out_proj.": "visual.trunk.attn_pool.proj.",
        "vision_model.head.layernorm.": "visual.trunk.attn_pool.norm.",
        "vision_model.head.mlp.": "visual.trunk.attn_pool.mlp.",
        "text_model.embeddings.token_embedding.": "text.token_embedding.",
        "text_model.embeddings.position_embedding.weight": "text.positional_embedding",
        "text_model.final_layer_norm.": "text.ln_final.",
        "text_model.encoder.layers.": "text.transformer.resblocks.",
        "text_model.head.": "text.text_projection.",
    },
    parts=(_PARTS, _TIMM_PARTS),
)
