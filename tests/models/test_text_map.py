"""A map after the text tower equals the tower with the map in its projection."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sds_clip.models.clip.student import StudentError
from sds_clip.models.clip.text_map import TextMap, fold, text_projection
from tests.architectures import build
from tests.checkpoints import tiny_network


@pytest.mark.parametrize(
    "architecture",
    ["ViT-B-32", "ViT-B-16-SigLIP", "mt5-base-ViT-B-32", "roberta-ViT-B-32", "nllb-clip-base", "coca_base"],
)
def test_folding_a_map_gives_the_embeddings_of_the_map(architecture: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network: Any = build(architecture, tmp_path, device="cpu").eval()
    own = isinstance(text_projection(network), nn.Parameter)  # open_clip's own towers take a fixed length
    tokens = torch.randint(2, 64, (3, network.context_length if own else 7))
    with torch.no_grad():
        if (bias := getattr(text_projection(network), "bias", None)) is not None:
            bias.normal_()  # it is 0 at first in some towers
        before = network.encode_text(tokens, normalize=False)
        text_map = TextMap(before.shape[1])
        assert torch.equal(text_map(before), before)  # it begins as the identity
        text_map.matrix += 0.1 * torch.randn_like(text_map.matrix)
        expected = text_map(before)
        fold(network, text_map.matrix)
        found = network.encode_text(tokens, normalize=False)
    assert (expected - before).norm() > 0.1 * before.norm()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_text_tower_without_a_matrix_at_its_end_is_refused() -> None:
    network: Any = tiny_network()
    network.text_projection = None
    with pytest.raises(StudentError, match="does not end with a matrix"):
        text_projection(network)
