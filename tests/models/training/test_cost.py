"""What a training step costs, counted on small networks whose counts are known, and against the documented figures."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from sds_clip.models.checkpoints.load import load_clip
from sds_clip.models.choices import Trainable
from sds_clip.models.clip.student import chosen_parameters
from sds_clip.models.teacher.folder import find_family
from sds_clip.models.teacher.load import load_teacher
from sds_clip.models.training import cost
from sds_clip.models.training.cost import Cost
from tests.checkpoints import save_siglip
from tests.teachers import (
    save_flux_teacher,
    save_pixart_teacher,
    save_sd3_teacher,
    save_sd_teacher,
    save_sdxl_teacher,
)
from tests.training import configure


def frozen_layers() -> tuple[torch.nn.Module, Callable[[bool], torch.Tensor]]:
    layers = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)).to("meta")
    layers.requires_grad_(False)

    def forward(with_graph: bool) -> torch.Tensor:
        output: torch.Tensor = layers(torch.empty(3, 4, device="meta", requires_grad=with_graph))
        return output

    return layers, forward


def test_counts_are_those_done_by_hand() -> None:
    layers, forward = frozen_layers()

    assert cost.operations(lambda: forward(False)) == 2 * 3 * (4 * 8 + 8 * 2)
    # A frozen layer's backward is one product, on its input.
    assert cost.operations_with_backward(forward) == 4 * 3 * (4 * 8 + 8 * 2)
    assert cost.kept_bytes(layers, forward) == 4 * 3 * 8


def test_attention_keeps_no_map() -> None:
    def forward(with_graph: bool) -> torch.Tensor:
        query, key, value = torch.empty(3, 1, 2, 64, 8, device="meta", requires_grad=with_graph).unbind()
        return torch.nn.functional.scaled_dot_product_attention(query, key, value)

    kept = cost.kept_bytes(torch.nn.Identity(), forward)

    assert kept == 4 * (3 + 1) * 2 * 64 * 8


UNET = Cost("U-Net sd15", 859_500_000, int(803.3e9), int(1726.0e9), 737 * 2**20)
VIT_B_16 = Cost("ViT-B-16", 149_600_000, int(41.1e9), int(83.5e9), 89 * 2**20)
SIZES = {"steps": 2000, "batch_size": 256, "micro_batch_size": 32, "sds_batch_size": 16, "log_every": 50}


@pytest.mark.parametrize(
    ("options", "teraflop", "gib"),
    [
        ({}, 60, 14.8),
        ({"gradient": "sds"}, 45, 6.1),
        ({"objective": "clip"}, 32, 4.0),
        ({"objective": "clip", "feature_distillation_weight": 1.0}, 42, 4.0),
        ({"micro_batch_size": 256}, 49, 25.6),
        ({"activation_checkpointing": True}, 73, 14.8),
    ],
)
def test_a_step_of_vit_b_16_under_stable_diffusion_costs_what_the_docs_say(
    options: dict[str, object], teraflop: float, gib: float
) -> None:
    """16 x 1726 + 256 x (83.5 + 41.1) GFLOP, and 16 x 803.3 in each 50th step; docs/reproduce.md has the tables."""
    config = configure(**SIZES | {"teacher_precision": "bfloat16"} | options)
    assert cost.step_operations(config, VIT_B_16, UNET) / 1e12 == pytest.approx(teraflop, abs=0.5)
    other_bytes, mapper = 4 * 123_100_000, 513 * 4 * 64 * 64
    found = cost.peak_bytes(config, VIT_B_16, UNET, trained=65_536, other_bytes=other_bytes, mapper=mapper)
    assert found / 2**30 == pytest.approx(gib, abs=0.2)


def test_scores_are_forwards_of_the_denoiser_and_keep_no_graph() -> None:
    options: dict[str, object] = {
        "objective": "score",
        "negatives": "made",
        "negatives_count": 3,
        "score_draws": 4,
    }
    own_too = configure(**SIZES | options | {"score_candidates": "all"})
    assert cost.score_operations(own_too, UNET) == 4 * 4 * UNET.forward
    others = configure(**SIZES | options | {"score_candidates": "negatives", "negatives": "data"})
    assert cost.score_operations(others, UNET) == 4 * 3 * UNET.forward
    graph = configure(**SIZES)
    sizes = {"trained": 0, "other_bytes": 0, "mapper": 0}
    kept = cost.peak_bytes(graph, Cost("none", 0, 0), UNET, **sizes) - cost.peak_bytes(
        own_too, Cost("none", 0, 0), UNET, **sizes
    )
    assert kept == graph.teacher_batch_size * UNET.kept_bytes


def test_what_is_trained_has_a_gradient_and_two_moments() -> None:
    config, nothing = configure(objective="clip"), Cost("no teacher", 0, 0)
    none, some = (
        cost.peak_bytes(config, VIT_B_16, nothing, trained=trained, other_bytes=0, mapper=0)
        for trained in (0, 1000)
    )
    assert some - none == 3 * 4 * 1000


@pytest.mark.parametrize(
    "save", [save_sd_teacher, save_pixart_teacher, save_sdxl_teacher, save_sd3_teacher, save_flux_teacher]
)
def test_a_denoiser_made_without_weights_costs_what_the_loaded_one_does(
    save: Callable[[Path], Path], tmp_path: Path
) -> None:
    folder = save(tmp_path / "teacher")
    teacher = load_teacher(str(folder), device="cpu", precision="float32")
    caption = teacher.family.condition(
        torch.zeros(1, teacher.family.tokens, teacher.family.caption_width(teacher.denoiser.config))
    )
    latents, timesteps = torch.zeros(1, *teacher.latent_shape), torch.ones(1, dtype=torch.long)

    def forward() -> torch.Tensor:
        return teacher.family.output(teacher.denoiser, latents, timesteps, caption, resolution_px=64)

    found = cost.denoiser_cost(folder, find_family(folder, "teacher"))
    with sdpa_kernel(SDPBackend.MATH):  # the CPU's own is not counted
        assert found.forward == cost.operations(forward)
    assert found.both > found.forward
    assert found.parameters == cost.count_parameters(teacher.denoiser)
    encoders = teacher.text_encoders.items()
    expected = {part: cost.count_parameters(encoder) for part, encoder in encoders}
    assert cost.text_encoder_parameters(folder, teacher.family) == expected


def test_a_vae_costs_what_its_convolutions_do(tmp_path: Path) -> None:
    folder = save_sd_teacher(tmp_path / "teacher")
    teacher = load_teacher(str(folder), device="cpu", precision="float32", vae=True)
    vae: Any = teacher.vae
    counts: list[int] = []

    def count(layer: torch.nn.Conv2d, inputs: object, output: torch.Tensor) -> None:
        counts.append(2 * output.numel() * layer.weight[0].numel())

    for module in vae.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(count)
    side = teacher.resolution_px
    vae.encode(torch.zeros(1, 3, side, side))
    found = cost.vae_cost(folder, teacher.family)
    assert found.forward == sum(counts)
    assert found.parameters == cost.count_parameters(vae)


@pytest.mark.parametrize("trainable", ["layernorm", "lora", "text-map", "all"])
def test_a_siglip_is_counted_whatever_is_trained(tmp_path: Path, trainable: Trainable) -> None:
    clip = load_clip(f"local-dir:{save_siglip(tmp_path)}", device="cpu", precision="float32")
    config = configure(objective="score", negatives="swap", trainable=trainable)
    pair, image, caption, trained = cost.clip_costs(clip, config)
    assert image.forward + caption.forward <= pair.forward < pair.both
    assert trained > 0


def test_a_pair_costs_what_its_image_and_its_caption_do(tiny_folder: Path) -> None:
    clip = load_clip(f"local-dir:{tiny_folder}", device="cpu", precision="float32")
    pair, image, caption, trained = cost.clip_costs(clip, configure())
    assert trained == sum(value.numel() for value in chosen_parameters(clip.network).values())
    *_, factors = cost.clip_costs(clip, configure(trainable="lora", lora_rank=2))
    assert factors == 2 * 2 * 8 * (
        64 + 32
    )  # two blocks a tower: q, k, v and out, each with 2 (w + w) numbers
    assert pair.forward == image.forward + caption.forward
    assert pair.parameters == clip.parameters
    mapped, *_, of_map = cost.clip_costs(
        clip, configure(objective="score", negatives="swap", trainable="text-map")
    )
    with_negatives, *_ = cost.clip_costs(
        clip, configure(objective="clip", negatives="swap", negatives_count=2)
    )
    with_one, *_ = cost.clip_costs(clip, configure(objective="clip", negatives="swap", negatives_count=1))
    assert with_negatives.kept_bytes - with_one.kept_bytes == with_one.kept_bytes - pair.kept_bytes > 0
    width = clip.embed_dim
    assert of_map == width**2
    assert mapped.both == mapped.forward + 2 * width**2  # of the matrix alone, whose inputs need no gradient
    assert mapped.forward == pair.forward + 2 * width**2
    pixels = torch.zeros(1, 3, *clip.image_size)
    with sdpa_kernel(SDPBackend.MATH):
        assert image.forward == cost.operations(lambda: clip.network.encode_image(pixels))
