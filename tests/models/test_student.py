from copy import deepcopy
from pathlib import Path

import open_clip
import pytest
import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from torch import nn

from sds_clip.models.clip.student import StudentError, chosen_parameters, summary, trainable_parameters
from sds_clip.models.losses.contrastive import contrastive_loss
from sds_clip.models.losses.sds import sds_loss
from sds_clip.models.mapper import Mapper
from tests.architectures import build
from tests.checkpoints import TINY, tiny_network
from tests.models.losses.toys import toy_teacher


def resnet() -> CLIP:
    config = deepcopy(TINY)
    config["vision_cfg"] = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None}
    return CLIP(**config)


def named(architecture: str) -> CLIP:
    config = open_clip.get_model_config(architecture)
    with torch.device("meta"):
        return CLIP(**config)


@pytest.mark.parametrize(
    ("architecture", "numbers"), [("ViT-B-32", 65_536), ("ViT-B-16", 65_536), ("ViT-L-14", 140_800)]
)
def test_layer_norms_hold_as_many_numbers_as_the_method_says(architecture: str, numbers: int) -> None:
    assert sum(value.numel() for value in trainable_parameters(named(architecture)).values()) == numbers


def test_summary_counts_numbers_and_modules_of_each_kind() -> None:
    network = tiny_network()
    numbers = sum(value.numel() for value in trainable_parameters(network).values())
    norms = sum(isinstance(module, nn.LayerNorm) for module in network.modules())
    assert summary(network, chosen_parameters(network)) == f"{numbers:,} numbers of {norms} LayerNorm"


def test_rms_norms_of_a_t5_text_tower_train(tmp_path: Path) -> None:
    network = build("mt5-base-ViT-B-32", tmp_path, device="cpu")
    chosen = trainable_parameters(network, "layernorm")
    norms = {
        "text.transformer.final_layer_norm.weight",
        *(
            f"text.transformer.block.{block}.layer.{part}.layer_norm.weight"
            for block in (0, 1)
            for part in (0, 1)
        ),
    }
    assert {name for name in chosen if not name.startswith("visual.")} == norms
    network.encode_text(torch.randint(2, 64, (3, 7))).square().sum().backward()
    assert all(chosen[name].grad.abs().sum() > 0 for name in norms)


@pytest.mark.parametrize("which", ["layernorm", "batchnorm"])
def test_text_tower_without_layer_norms_is_refused(which: str) -> None:
    network = resnet() if which == "batchnorm" else tiny_network()
    for name, module in list(network.transformer.named_modules()):
        if isinstance(module, nn.LayerNorm):
            network.transformer.set_submodule(name, nn.Identity())
    network.ln_final = nn.Identity()
    with pytest.raises(StudentError, match="text tower has no LayerNorm"):
        trainable_parameters(network, which)
    assert trainable_parameters(network, "all")


def test_all_else_is_frozen_and_in_eval() -> None:
    network = tiny_network().train()
    chosen = trainable_parameters(network, "layernorm")
    assert {name for name, value in network.named_parameters() if value.requires_grad} == set(chosen)
    assert all(".ln_" in name or name.startswith("ln_") for name in chosen)
    assert not network.training


def test_all_trains_the_logit_scale_too() -> None:
    network = tiny_network()
    assert set(trainable_parameters(network, "all")) == set(dict(network.named_parameters()))
    assert "logit_scale" not in trainable_parameters(network, "layernorm")


def test_image_tower_without_layer_norms_is_refused_with_the_way_out() -> None:
    with pytest.raises(StudentError, match=r"no LayerNorm.*batchnorm"):
        trainable_parameters(resnet())


def test_batch_norms_train_when_asked_and_keep_their_statistics() -> None:
    network = resnet().train()
    chosen = trainable_parameters(network, "batchnorm")
    assert {"visual.bn1.weight", "ln_final.bias"} <= set(chosen)
    before = {name: value.clone() for name, value in network.named_buffers()}
    network.encode_image(torch.randn(2, 3, 64, 64)).square().sum().backward()
    assert network.visual.bn1.weight.grad is not None
    assert all(torch.equal(value, before[name]) for name, value in network.named_buffers())


def test_batchnorm_for_a_tower_without_any_and_unknown_choices_are_refused() -> None:
    with pytest.raises(StudentError, match="no BatchNorm"):
        trainable_parameters(tiny_network(), "batchnorm")
    with pytest.raises(StudentError, match="layernorm, batchnorm, all"):
        trainable_parameters(tiny_network(), "biases")


def test_only_layer_norms_and_the_mapper_change_bit_for_bit() -> None:
    network, teacher = tiny_network(), toy_teacher()
    mapper = Mapper(32, (2, 2, 2))
    norms = {
        f"{prefix}.{name}"
        for prefix, module in network.named_modules()
        if isinstance(module, nn.LayerNorm)
        for name, _ in module.named_parameters()
    }
    before = {name: value.clone() for name, value in network.state_dict().items()}
    before_mapper = {name: value.clone() for name, value in mapper.state_dict().items()}
    optimizer = torch.optim.AdamW([*trainable_parameters(network).values(), *mapper.parameters()], lr=1e-3)
    torch.manual_seed(0)
    for _ in range(2):
        image = network.encode_image(torch.randn(3, 3, 32, 32))
        text = network.encode_text(torch.randint(1, 49407, (3, 77)))
        noise, captions = torch.randn(3, 2, 2, 2), torch.randn(3, 3, 2)
        loss = contrastive_loss(F.normalize(image), F.normalize(text), network.logit_scale.exp())
        loss = loss + sds_loss(mapper(image), captions, torch.tensor([1, 2, 3]), noise, teacher=teacher).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert {
        name for name, value in network.state_dict().items() if not torch.equal(value, before[name])
    } == norms
    assert not any(torch.equal(value, before_mapper[name]) for name, value in mapper.state_dict().items())
