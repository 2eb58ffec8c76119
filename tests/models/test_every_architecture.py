"""What is trained and what decays, in all of open_clip's architectures."""

import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sds_clip.models.choices import LoraTargets
from sds_clip.models.clip.attention import attend_batch_first
from sds_clip.models.clip.lora import attach
from sds_clip.models.clip.mixed import Family, Unmixable
from sds_clip.models.clip.student import StudentError, trainable_parameters
from sds_clip.models.training.optimizer import decaying_parameters
from tests.architectures import build, every_network

Networks = list[tuple[str, nn.Module]]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Networks:
    return list(every_network(tmp_path_factory.mktemp("text models")))


def test_the_weights_of_matrix_products_decay_and_nothing_that_a_tower_exempts(networks: Networks) -> None:
    products = (nn.Linear, nn.modules.conv._ConvNd, nn.MultiheadAttention)
    for architecture, network in networks:
        expected = {
            name
            for name, _ in network.named_parameters()
            if name.endswith(("visual.proj", "text_projection"))
        }
        exempt = set()
        for prefix, module in network.named_modules():
            if isinstance(module, products):
                own = module.named_parameters(prefix, recurse=False)
                expected |= {name for name, value in own if value.ndim > 1}
            if hasattr(module, "no_weight_decay"):
                exempt |= {f"{prefix}.{name}" for name in module.no_weight_decay()}
        assert decaying_parameters(network) == expected, architecture
        assert not expected & exempt, architecture


def test_layer_norms_and_rms_norms_train_in_both_towers(networks: Networks) -> None:
    for architecture, network in networks:
        expected = {
            name
            for prefix, module in network.named_modules()
            if any(kind in type(module).__name__.lower() for kind in ("layernorm", "rmsnorm"))
            for name, _ in module.named_parameters(prefix, recurse=False)
        }
        of_image_tower = {name for name in expected if name.startswith("visual.")}
        assert expected > of_image_tower, architecture
        if of_image_tower:
            assert set(trainable_parameters(network)) == expected, architecture
        else:
            with pytest.raises(StudentError, match="image tower has no LayerNorm"):
                trainable_parameters(network)


def inputs_of(architecture: str) -> tuple[tuple[int, int], int]:
    """The size of its images, and the length of its texts."""
    config = open_clip.get_model_config(architecture)
    size = config["vision_cfg"].get("image_size", 224)
    length: int = config["text_cfg"].get("context_length", 77)
    return (size, size) if isinstance(size, int) else tuple(size), length


@pytest.mark.long
def test_versions_share_batches_in_all_but_coca_and_towers_of_transformers(networks: Networks) -> None:
    apart = set()
    for architecture, network in networks:
        try:
            Family(network.eval()).try_out(*inputs_of(architecture), torch.float32)
        except Unmixable:
            apart.add(architecture.split("-")[0].split("_")[0])
    assert apart == {"coca", "mt5", "nllb", "roberta", "xlm"}


@pytest.mark.parametrize(
    "architecture", ["ViT-B-32", "ViT-B-16-SigLIP", "convnext_tiny", "RN50", "ViTamin-S", "PE-Core-T-16-384"]
)
@torch.inference_mode()
def test_mixed_rows_are_those_of_each_version(architecture: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    family = Family(build(architecture, tmp_path, device="cpu").eval())
    tensors = family.first.alone({}).state_dict()
    moved = {name: tensors[name] + 0.1 * torch.randn_like(tensors[name]) for name in family.places}
    other = family.first.with_tensors(moved)
    assert other is not None
    groups, (size, length) = [(family.first, 1), (other, 2)], inputs_of(architecture)
    pixels, tokens = torch.randn(3, 3, *size), torch.randint(1, 100, (3, length))

    images, texts = family.encode_image(groups, pixels), family.encode_text(groups, tokens)

    plain = [member.alone({}).eval() for member in (family.first, other)]
    for mixed, inputs, encode in ((images, pixels, "encode_image"), (texts, tokens, "encode_text")):
        first, second = (F.normalize(getattr(network, encode)(inputs), dim=-1) for network in plain)
        expected = torch.cat([first[:1], second[1:]])
        torch.testing.assert_close(F.normalize(mixed, dim=-1), expected, atol=1e-5, rtol=0)
        # Convolutions with random weights see no difference between images.
        if encode == "encode_text" or architecture not in ("RN50", "convnext_tiny"):
            assert (first - second).abs().max() > 1e-3


@pytest.mark.long
@pytest.mark.parametrize("targets", ["attention", "mlp"])
def test_factors_have_a_gradient_wherever_they_are_put(networks: Networks, targets: LoraTargets) -> None:
    """A layer whose weight the network reads itself would have factors that are trained, and do nothing."""
    refused = set()
    for architecture, plain in networks:
        network: Any = attend_batch_first(deepcopy(plain).requires_grad_(False).eval())
        try:
            parameters = attach(network, targets=targets, rank=2, scale=1.0, seed=0)
        except StudentError:
            refused.add(re.split(r"[-_\d]", architecture)[0])
            continue
        size, length = inputs_of(architecture)
        images = network.encode_image(torch.empty(2, 3, *size, device="meta"))
        texts = network.encode_text(torch.zeros(2, length, dtype=torch.long, device="meta"))
        (images.sum() + texts.sum()).backward()
        assert [name for name, value in parameters.items() if value.grad is None] == [], architecture
    others = {"attention": {"convnext", "EVA", "PE", "swin", "vit"}, "mlp": {"EVA", "ViTamin"}}
    assert refused == {"coca", "mt", "nllb", "roberta", "xlm", "RN", "MobileCLIP"} | others[targets]
