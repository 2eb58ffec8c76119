"""Factors beside a layer equal the layer with their product in its weight, in values and in gradients."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.func import functional_call

from sds_clip.models.checkpoints.delta import clip_with, lay_over, save_delta
from sds_clip.models.checkpoints.delta_file import DeltaError, read_delta
from sds_clip.models.checkpoints.load import load_clip, network_of, network_without_numbers
from sds_clip.models.checkpoints.references import parse
from sds_clip.models.choices import LoraTargets
from sds_clip.models.clip.attention import attend_batch_first
from sds_clip.models.clip.lora import attach, factors, layers
from sds_clip.models.clip.model import Clip
from sds_clip.models.clip.packed import to_serve
from sds_clip.models.clip.student import StudentError, summary
from tests.architectures import build
from tests.deltas import attached, save_lora, save_tuned

TARGETS: tuple[LoraTargets, ...] = ("attention", "mlp", "both")
TEXTS = ["a red cube", "two dogs", ""]


@pytest.fixture(params=["tiny_folder", "siglip_folder"])
def base(request: pytest.FixtureRequest) -> Clip:
    folder: Path = request.getfixturevalue(request.param)
    return load_clip(f"local-dir:{folder}", device="cpu", precision="float32")


def pixels_of(clip: Clip) -> Tensor:
    return torch.randn(2, 3, *clip.image_size, generator=torch.Generator().manual_seed(7))


class Both(nn.Module):
    """A number that depends on both towers' features, beside the features."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network: Any = network

    def forward(self, pixels: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        image, text = self.network.encode_image(pixels), self.network.encode_text(tokens)
        return image.square().sum() + (text * torch.arange(text.shape[1])).sum(), image, text


def by_hand(network: nn.Module, parameters: dict[str, Tensor], scale: float) -> dict[str, Tensor]:
    """The weights in float64, with s B A added to the matrix of the queries, of the keys, and so on."""
    weights = {name: value.double() for name, value in network.state_dict().items()}
    for layer in [name.removesuffix(".lora.A") for name in parameters if name.endswith(".lora.A")]:
        a, b = parameters[f"{layer}.lora.A"], parameters[f"{layer}.lora.B"]
        name = next(name for name in (f"{layer}.weight", f"{layer}.in_proj_weight") if name in weights)
        matrices = zip(weights[name].chunk(len(a)), a, b, strict=True)
        weights[name] = torch.cat([matrix + scale * (b_of @ a_of) for matrix, a_of, b_of in matrices])
    return {f"network.{name}": value for name, value in weights.items()}


@pytest.mark.parametrize("targets", TARGETS)
def test_values_and_gradients_are_those_of_the_product_in_the_weight(
    base: Clip, targets: LoraTargets
) -> None:
    network, parameters = attached(base, targets, rank=3, scale=0.75)
    pixels, tokens = pixels_of(base), base.tokenizer(TEXTS)
    number, *features = Both(network)(pixels, tokens)
    number.backward()

    exact = {name: value.detach().double().requires_grad_(True) for name, value in parameters.items()}
    weights = by_hand(base.network, exact, 0.75)
    expected, *others = functional_call(
        Both(deepcopy(base.network).double()), weights, (pixels.double(), tokens)
    )
    expected.backward()
    for ours, theirs in zip(features, others, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-5)
    for name, value in parameters.items():
        assert value.grad is not None
        gradient = exact[name].grad
        assert gradient is not None
        assert (value.grad.double() - gradient).norm() <= 1e-5 * gradient.norm()


@pytest.mark.parametrize("targets", TARGETS)
def test_fresh_factors_change_no_bit_and_are_drawn_from_the_seed(base: Clip, targets: LoraTargets) -> None:
    drawn = []
    for seed in (1, 1, 2):
        network: Any = deepcopy(base.network)
        parameters = attach(network, targets=targets, rank=4, scale=1.0, seed=seed)
        pixels = pixels_of(base)
        assert torch.equal(network.encode_image(pixels), base.encode_image(pixels, normalize=False))
        assert factors(network) == {}
        drawn.append(parameters)
    for name, value in drawn[0].items():
        assert torch.equal(value, drawn[1][name])
        if name.endswith(".B"):
            assert not value.any()
        else:  # as torch's own layers begin, which PEFT does too
            assert not torch.equal(value, drawn[2][name])
            bound = value.shape[2] ** -0.5
            assert 0.9 * bound < value.abs().max() <= bound


@pytest.mark.parametrize(
    ("architecture", "targets", "numbers"),
    [
        # of width w and rank 4: 4 (w + w) for each of q, k, v and out, and 4 (w + 4 w) for both layers of an MLP
        ("ViT-B-32", "attention", 12 * 4 * 8 * (768 + 512)),
        ("ViT-B-32", "mlp", 12 * 2 * 20 * (768 + 512)),
        ("ViT-B-32", "both", 12 * (32 + 40) * (768 + 512)),
        ("ViT-L-14", "attention", 4 * 8 * (24 * 1024 + 12 * 768)),
        ("ViT-B-16-SigLIP", "attention", 12 * 4 * 8 * (768 + 768)),
    ],
)
def test_factors_hold_as_many_numbers_as_the_ranks_say(
    architecture: str, targets: LoraTargets, numbers: int, tmp_path: Path
) -> None:
    network = attend_batch_first(build(architecture, tmp_path))
    parameters = attach(network, targets=targets, rank=4, scale=1.0, seed=0)
    # `build` keeps one block a tower of open_clip's own.
    towers = {"ViT-B-32": (12, 12), "ViT-L-14": (24, 12), "ViT-B-16-SigLIP": (1, 12)}[architecture]
    found = sum(
        value.numel() * towers[0 if name.startswith("visual.") else 1] for name, value in parameters.items()
    )
    assert found == numbers
    assert summary(network, parameters).endswith(" LoRA")


def test_rank_above_the_width_is_refused_by_the_layers_name(base: Clip) -> None:
    with pytest.raises(StudentError, match=r"layer visual\..*lora_rank can be at most \d+, and not 65"):
        attach(deepcopy(base.network), targets="attention", rank=65, scale=1.0, seed=0)


@pytest.mark.parametrize(
    ("architecture", "tower"), [("roberta-ViT-B-32", "text"), ("RN50", "image"), ("coca_ViT-B-32", "text")]
)
def test_tower_without_layers_that_factors_reach_is_refused(
    architecture: str, tower: str, tmp_path: Path
) -> None:
    network = attend_batch_first(build(architecture, tmp_path))
    with pytest.raises(StudentError, match=f"{tower} tower has no layers for lora_targets: attention"):
        attach(network, targets="attention", rank=2, scale=1.0, seed=0)


def test_network_without_numbers_tells_the_same_as_the_checkpoint(base: Clip) -> None:
    """By the description that a version's row has, and by the reference."""
    expected = {
        name: (layer, base.network.get_parameter(layer.weight).shape) for name, layer in layers(base.network)
    }
    for network in (
        network_without_numbers(base.identity.description["model"]),
        network_of(parse(base.reference)),
    ):
        assert network is not None
        found = {name: (layer, network.get_parameter(layer.weight).shape) for name, layer in layers(network)}
        assert found == expected


# As a version


def assert_computes_as(clip: Clip, other: Clip, tolerance: float = 1e-5) -> None:
    pixels, tokens = pixels_of(other), other.tokenizer(TEXTS)
    for ours, theirs in (
        (clip.encode_image(pixels), other.encode_image(pixels)),
        (clip.encode_text(tokens), other.encode_text(tokens)),
    ):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance)


def test_delta_keeps_the_factors_and_is_loaded_as_the_network_that_was_trained(
    base: Clip, tmp_path: Path
) -> None:
    network, parameters = attached(base, "both", scale=0.5)
    clip = load_clip(str(save_lora(tmp_path / "delta", base, "both", scale=0.5)), precision="float32")
    stored = load_file(tmp_path / "delta" / "delta.safetensors")
    assert stored.keys() == parameters.keys() | {"lora.scale"}
    assert all(torch.equal(stored[name], value) for name, value in parameters.items())
    assert stored["lora.scale"] == 0.5
    assert_computes_as(clip, clip_with(base, network))
    assert not torch.allclose(
        clip.encode_text(clip.tokenizer(TEXTS)), base.encode_text(base.tokenizer(TEXTS))
    )
    assert clip.version == base.identity.replacing(stored).version
    assert not any(".lora" in name for name in clip.network.state_dict())


def test_factors_that_add_nothing_are_not_kept(base: Clip, tmp_path: Path) -> None:
    network: Any = deepcopy(base.network)
    parameters = attach(network, targets="attention", rank=2, scale=1.0, seed=0)
    assert save_as(tmp_path / "fresh", base, network).version == base.version
    moved = next(name for name in parameters if name.endswith(".B"))
    parameters[moved].data += 1
    save_as(tmp_path / "one", base, network)
    kept = load_file(tmp_path / "one" / "delta.safetensors")
    assert kept.keys() == {moved, f"{moved[:-1]}A", "lora.scale"}


def save_as(folder: Path, base: Clip, network: nn.Module) -> Clip:
    save_delta(folder, base, network, configuration={}, data={}, metrics={}, factors=factors(network))
    return load_clip(str(folder), device="cpu", precision="float32")


def test_a_part_of_the_delta_is_that_part_of_the_product(base: Clip, tmp_path: Path) -> None:
    folder = save_lora(tmp_path / "delta", base, scale=2.0)
    quarter = load_clip(f"local-dir:{folder}#alpha=0.25", device="cpu", precision="float32")
    network, _ = attached(base, scale=0.5)
    assert_computes_as(quarter, clip_with(base, network))
    half_scaled = save_lora(tmp_path / "scaled", base, scale=0.5)
    assert quarter.version == load_clip(str(half_scaled)).version
    assert load_clip(f"local-dir:{folder}#alpha=0").version == base.version


def test_deltas_over_factors_are_versions_of_their_own_in_each_order(base: Clip, tmp_path: Path) -> None:
    made = {}
    for first, second in ((1, 2), (2, 1)):
        one = load_clip(str(save_lora(tmp_path / f"{first}", base, seed=first)), precision="float32")
        folder = save_lora(tmp_path / f"{first}{second}", one, seed=second)
        made[first, second] = load_clip(str(folder), device="cpu", precision="float32")
        tuned = save_tuned(tmp_path / f"{first}-norms", one, seed=second)
        assert load_clip(str(tuned)).identity.tensors["over"].sha256 == one.version
    assert made[1, 2].version != made[2, 1].version
    assert_computes_as(made[1, 2], made[2, 1])
    alone = load_clip(str(save_lora(tmp_path / "alone", base, seed=2)), device="cpu", precision="float32")
    assert alone.version not in {clip.version for clip in made.values()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda name, value: (name, value[:, :, 1:]), "has shape"),
        (lambda name, value: (name.replace("resblocks.0", "resblocks.9"), value), "does not exist"),
    ],
)
def test_factors_that_do_not_fit_the_base_are_refused_by_name(
    tiny_folder: Path, tmp_path: Path, change: Callable[[str, Tensor], tuple[str, Tensor]], message: str
) -> None:
    base = load_clip(f"local-dir:{tiny_folder}", device="cpu", precision="float32")
    folder = save_lora(tmp_path / "delta", base)
    name = "visual.transformer.resblocks.0.attn.lora.A"
    delta = read_delta(folder)
    others = {key: value for key, value in delta.tensors.items() if key != name}
    tensors = others | dict([change(name, delta.tensors[name])])
    with pytest.raises(DeltaError, match=rf"resblocks\.\d\.attn\.lora\.[AB] .*{message}"):
        lay_over(base, replace(delta, tensors=tensors))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_served_version_is_exact_over_packed_weights(base: Clip, tmp_path: Path, precision: str) -> None:
    folder = save_lora(tmp_path / "delta", base, "both")
    served = to_serve(load_clip(base.reference, device="cpu", precision=precision))
    clip = to_serve(lay_over(served, read_delta(folder)))
    alone = load_clip(str(folder), device="cpu", precision=precision)
    assert clip.version == alone.version
    assert_computes_as(clip, alone, 1e-5 if precision == "float32" else 2e-2)
