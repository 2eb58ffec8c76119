"""Texts without their padding have the features and the gradients that open_clip computes with it."""

from typing import Any

import pytest
import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg, CustomTextCLIP
from torch import Tensor

from sds_clip.models.clip.mixed import Family
from sds_clip.models.clip.short_texts import encode_text, without_padding

CONTEXT, END = 12, 49
VISION = CLIPVisionCfg(layers=1, width=16, head_width=8, patch_size=8, image_size=16)
TOKENS = torch.tensor(
    [
        [48, 7, 3, END, 0, 0, 0, 0, 0, 0, 0, 0],
        [48, 9, 9, 4, 30, END, 0, 0, 0, 0, 0, 0],
        [48, END, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    ]
)
FULL = torch.tensor([[48, *range(1, CONTEXT - 1), END]])


def network(kind: type[Any] = CLIP, **text: Any) -> Any:
    torch.manual_seed(0)
    config = CLIPTextCfg(context_length=CONTEXT, vocab_size=50, width=16, heads=2, layers=2, **text)
    made = kind(8, VISION, config)
    torch.nn.init.normal_(
        made.text.positional_embedding if kind is CustomTextCLIP else made.positional_embedding
    )
    return made.double()


def gradients(made: Any, features: Tensor) -> dict[str, Tensor]:
    made.zero_grad()
    features.tanh().sum().backward()
    return {name: value.grad.clone() for name, value in made.named_parameters() if value.grad is not None}


@pytest.mark.parametrize(
    "text",
    [{}, {"pool_type": "eos", "eos_id": END}, {"proj_bias": True}, {"proj_type": "none"}],
    ids=["argmax", "eos", "linear projection", "no projection"],
)
def test_features_and_gradients_are_open_clip_s(text: dict[str, Any]) -> None:
    made = network(**text)
    short = without_padding(made, TOKENS)
    assert short.shape == (3, 6)
    ours, theirs = encode_text(made, short), made.encode_text(TOKENS)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    expected, found = gradients(made, theirs), gradients(made, ours)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-12)


def test_a_text_that_fills_the_context_keeps_all_of_it() -> None:
    made, tokens = network(), torch.cat([TOKENS, FULL])
    assert torch.equal(without_padding(made, tokens), tokens)
    assert torch.equal(encode_text(made, tokens), made.encode_text(tokens))
    assert encode_text(made, without_padding(made, tokens[:0])).shape == (0, 8)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (CLIP, {"no_causal_mask": True}),
        (CLIP, {"pool_type": "last"}),
        (CustomTextCLIP, {}),
    ],
    ids=["not causal", "last token", "a text tower of its own"],
)
def test_a_tower_that_may_need_its_padding_gets_it(kind: type[Any], text: dict[str, Any]) -> None:
    made = network(kind, **text)
    assert torch.equal(without_padding(made, TOKENS), TOKENS)
    assert torch.equal(encode_text(made, TOKENS), made.encode_text(TOKENS))


def test_versions_that_share_batches_share_the_short_context() -> None:
    first = Family(network().float()).first
    short = without_padding(first, TOKENS)
    assert short.shape == (3, 6)
    torch.testing.assert_close(first.encode_text(short), first.encode_text(TOKENS), rtol=1e-6, atol=1e-6)
