import math
from pathlib import Path

import pytest
import torch
from torch import nn

from sds_clip.models.clip.attention import attend_batch_first
from sds_clip.models.clip.lora import attach
from sds_clip.models.training.optimizer import (
    decaying_parameters,
    gradient_norm,
    make_optimizer,
    rate_share,
    set_learning_rate,
)
from tests.architectures import build
from tests.checkpoints import tiny_network
from tests.training import configure


def test_rate_rises_in_a_line_and_falls_in_a_cosine() -> None:
    shares = [rate_share(step, 10, 4) for step in range(10)]
    assert shares[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert shares[5:] == pytest.approx([(1 + math.cos(math.pi * part / 6)) / 2 for part in range(1, 6)])


@pytest.mark.parametrize(("steps", "warmup"), [(1, 0), (1, 50), (3, 50)])
def test_a_run_shorter_than_its_warm_up_still_reaches_the_peak(steps: int, warmup: int) -> None:
    shares = [rate_share(step, steps, warmup) for step in range(steps)]
    assert shares[-1] == 1
    assert all(share > 0 for share in shares)


def decayed(network: nn.Module) -> set[str]:
    """The parameters that a step without any gradient moves."""
    student = dict(network.named_parameters())
    with torch.no_grad():
        for value in student.values():
            value.fill_(1.0)
    mapper = {"linear.weight": nn.Parameter(torch.ones(2, 2))}
    optimizer = make_optimizer(network, student, mapper, configure(weight_decay=0.5))
    for value in (*student.values(), *mapper.values()):
        value.grad = torch.zeros_like(value)
    optimizer.step()
    assert torch.equal(mapper["linear.weight"], torch.ones(2, 2))
    return {name for name, value in student.items() if not torch.equal(value, torch.ones_like(value))}


def test_matrices_alone_decay() -> None:
    assert decayed(tiny_network()) == {
        "visual.conv1.weight", "visual.proj", "text_projection",
        *(
            f"{tower}resblocks.{block}.{name}"
            for tower in ("visual.transformer.", "transformer.")
            for block in range(2)
            for name in ("attn.in_proj_weight", "attn.out_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
        ),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("architecture", "kept"),
    [
        ("ViT-B-16-SigLIP", {"visual.trunk.pos_embed", "visual.trunk.attn_pool.latent"}),
        ("MobileCLIP-B", {"visual.trunk.pos_embed", "visual.trunk.cls_token"}),
        ("MobileCLIP-S1", {"visual.trunk.stages.0.blocks.0.token_mixer.layer_scale.gamma"}),
        (
            "swin_base_patch4_window7_224",
            {"visual.trunk.layers.0.blocks.0.attn.relative_position_bias_table"},
        ),
        ("coca_ViT-B-32", {"visual.attn_pool.query"}),
        ("nllb-clip-base", {"text.transformer.embed_tokens.weight"}),
        (
            "mt5-base-ViT-B-32",
            {
                "text.transformer.embed_tokens.weight",
                "text.transformer.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
            },
        ),
    ],
)
def test_tokens_tables_queries_and_embeddings_do_not_decay(
    architecture: str, kept: set[str], tmp_path: Path
) -> None:
    network = build(architecture, tmp_path)
    student = dict(network.named_parameters())
    optimizer = make_optimizer(network, student, {}, configure(weight_decay=0.5))
    decay_of = {
        id(value): group["weight_decay"] for group in optimizer.param_groups for value in group["params"]
    }
    assert {name for name in kept if decay_of[id(student[name])] != 0} == set()


def test_matrices_that_the_tower_itself_exempts_do_not_decay() -> None:
    class Tower(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mlp, self.position_mlp = nn.Linear(2, 2), nn.Linear(2, 2)

        def no_weight_decay(self) -> set[str]:
            return {"position_mlp.weight"}

    assert decayed(nn.ModuleDict({"visual": Tower()})) == {"visual.mlp.weight"}


def test_factors_decay_as_matrices_do() -> None:
    network = attend_batch_first(tiny_network())
    factors = attach(network, targets="both", rank=2, scale=1.0, seed=0)
    assert factors.keys() <= decaying_parameters(network)


def test_student_and_mapper_have_rates_of_their_own() -> None:
    student, mapper = {"ln.weight": nn.Parameter(torch.ones(2))}, {"bias": nn.Parameter(torch.ones(2))}
    config = configure(lr=0.1, mapper_lr=0.01, warmup_steps=1)
    optimizer = make_optimizer(nn.Module(), student, mapper, config)
    set_learning_rate(optimizer, config, step=0, steps=4)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.05, 0.005])


def test_the_mapper_s_pace_does_not_depend_on_the_size_of_its_gradient() -> None:
    moved = []
    for scale in (1e-8, 1e-5):
        weight = nn.Parameter(torch.zeros(3))
        optimizer = make_optimizer(nn.Module(), {}, {"linear.weight": weight}, configure(mapper_lr=0.01))
        set_learning_rate(optimizer, configure(mapper_lr=0.01, warmup_steps=0), step=0, steps=4)
        weight.grad = scale * torch.tensor([1.0, -2.0, 3.0])
        optimizer.step()
        moved.append(weight.detach().clone())
    torch.testing.assert_close(moved[0], moved[1], rtol=1e-3, atol=0)


def test_norm_is_over_all_gradients_and_none_counts_as_zero() -> None:
    one, two, unreached = (nn.Parameter(torch.zeros(1)) for _ in range(3))
    one.grad, two.grad = torch.tensor([3.0]), torch.tensor([4.0])
    assert gradient_norm([one, two, unreached]).item() == pytest.approx(5)
