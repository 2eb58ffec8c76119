"""Versions of one base in one batch, against each version's own network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sds_clip.models.checkpoints.delta import apply_delta, lay_over, save_delta
from sds_clip.models.checkpoints.delta_file import read_delta
from sds_clip.models.checkpoints.load import load_clip
from sds_clip.models.choices import LoraTargets
from sds_clip.models.clip.mixed import Member, as_member, encode_images, encode_texts, family_of
from sds_clip.models.clip.model import Clip
from sds_clip.models.clip.packed import to_serve
from sds_clip.models.clip.sharing import bytes_apart
from tests.checkpoints import save_resnet, save_siglip, save_tiny_clip
from tests.deltas import save_lora, save_tuned, tuned_copy

TEXTS = ["a red cube", "two dogs", "", "a blue ball left of a red cube"]
HISTORY: dict[str, dict[str, str]] = {"configuration": {}, "data": {}, "metrics": {}}


def moved(network: nn.Module) -> bool:
    """What a version may have for itself: LayerNorms here, and below the projection and the scale."""
    return isinstance(network, nn.LayerNorm)


@pytest.fixture(scope="module", params=["clip", "siglip"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    save = {"clip": save_tiny_clip, "siglip": save_siglip}[request.param]
    return save(tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def deltas(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three versions that differ in LayerNorms, and one that also has a projection and a scale of its own."""
    base = load_clip(f"local-dir:{folder}", device="cpu", precision="float32")
    made = tmp_path_factory.mktemp("deltas")
    saved = [save_tuned(made / str(seed), base, seed=seed) for seed in range(3)]
    tuned = tuned_copy(base, seed=3)
    with torch.no_grad():
        for name, value in tuned.named_parameters():
            if "text_projection" in name or name == "logit_scale":
                value.mul_(1.25)
    return [*saved, save_delta(made / "map", base, tuned, **HISTORY)]


@pytest.fixture(scope="module")
def loras(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three versions of LoRA that differ in their ranks and in the layers with factors, and one over the first."""
    base = load_clip(f"local-dir:{folder}", device="cpu", precision="float32")
    made = tmp_path_factory.mktemp("loras")
    targets: tuple[LoraTargets, ...] = ("attention", "mlp", "both")
    saved = [
        save_lora(made / each, base, each, rank=rank, scale=0.5, seed=rank)
        for rank, each in enumerate(targets, start=1)
    ]
    first = load_clip(f"local-dir:{saved[0]}", device="cpu", precision="float32")
    return [*saved, save_lora(made / "over", first, "both", seed=9)]


def members(folder: Path, deltas: list[Path], precision: str, device: str = "cpu") -> list[Clip]:
    base = as_member(load_clip(f"local-dir:{folder}", device=device, precision=precision))
    return [base, *(lay_over(base, read_delta(delta)) for delta in deltas)]


def plain(folder: Path, deltas: list[Path], precision: str) -> list[Clip]:
    base = load_clip(f"local-dir:{folder}", device="cpu", precision=precision)
    return [base, *(apply_delta(base, delta) for delta in deltas)]


def pixels_of(clip: Clip, count: int) -> Tensor:
    return torch.randn(count, 3, *clip.image_size, generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_member_computes_what_the_version_computes_by_itself(
    folder: Path, deltas: list[Path], precision: str
) -> None:
    for ours, theirs in zip(
        members(folder, deltas, precision), plain(folder, deltas, precision), strict=True
    ):
        assert isinstance(ours.network, Member)
        assert (ours.version, ours.logit_scale, ours.logit_bias) == (
            theirs.version,
            theirs.logit_scale,
            theirs.logit_bias,
        )
        pixels, tokens = pixels_of(ours, 4), ours.tokenizer(TEXTS)
        assert torch.equal(ours.encode_image(pixels), theirs.encode_image(pixels))
        assert torch.equal(ours.encode_text(tokens), theirs.encode_text(tokens))
        assert ours.patches == theirs.patches


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_each_pair_of_versions_in_a_batch_answers_as_alone(
    folder: Path, deltas: list[Path], loras: list[Path], precision: str
) -> None:
    clips = members(folder, [*deltas[2:], *loras[:3]], precision)
    pixels, tokens = pixels_of(clips[0], 4), clips[0].tokenizer(TEXTS)
    for one, other in product(clips, repeat=2):
        rows = [one, other, other, one]  # the rows of a version need not lie side by side
        for encoded, alone in (
            (
                encode_images(rows, pixels),
                [clip.encode_image(pixels, normalize=False) for clip in (one, other)],
            ),
            (
                encode_texts(rows, tokens),
                [clip.encode_text(tokens, normalize=False) for clip in (one, other)],
            ),
        ):
            expected = torch.stack([alone[0][0], alone[1][1], alone[1][2], alone[0][3]])
            cosines = F.cosine_similarity(encoded, expected)
            assert cosines.min() >= 0.999999
            if precision == "float32":
                torch.testing.assert_close(encoded, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("kept", ["as it is", "packed"])
def test_factors_answer_as_the_weights_that_they_are_merged_into(
    folder: Path, deltas: list[Path], loras: list[Path], kept: str, precision: str
) -> None:
    """In a batch of versions that differ in ranks, layers and LayerNorms, each against a network of its own."""
    base = load_clip(f"local-dir:{folder}", device="cpu", precision=precision)
    base = as_member(base) if kept == "as it is" else to_serve(base)
    clips = [base, *(lay_over(base, read_delta(delta)) for delta in (*loras[:3], deltas[0]))]
    clips.append(lay_over(clips[1], read_delta(loras[3])))
    merged = [
        load_clip(f"local-dir:{path}", device="cpu", precision=precision) for path in (folder, *loras[:3])
    ]
    merged += [
        load_clip(f"local-dir:{path}", device="cpu", precision=precision) for path in (deltas[0], loras[3])
    ]
    assert [clip.version for clip in clips] == [clip.version for clip in merged]
    assert all(family_of(clip) is family_of(base) for clip in clips)
    rows = [0, 1, 2, 3, 4, 5, 3, 1]
    pixels, tokens = pixels_of(base, len(rows)), base.tokenizer([*TEXTS, *TEXTS])
    images, texts = (
        encode([clips[row] for row in rows], given)
        for encode, given in ((encode_images, pixels), (encode_texts, tokens))
    )
    for place, row in enumerate(rows):
        alone = (
            merged[row].encode_image(pixels[place : place + 1], normalize=False)[0],
            merged[row].encode_text(tokens[place : place + 1], normalize=False)[0],
        )
        for mixed, expected in zip((images[place], texts[place]), alone, strict=True):
            if precision == "float32":
                torch.testing.assert_close(mixed, expected, atol=1e-5, rtol=1e-5)
            assert F.cosine_similarity(mixed, expected, dim=0) > 0.999


def test_versions_in_a_batch_differ(folder: Path, deltas: list[Path], loras: list[Path]) -> None:
    """Otherwise the other tests would prove nothing."""
    clips = members(folder, [*deltas, *loras[:3]], "float32")
    same = pixels_of(clips[0], 1).expand(len(clips), -1, -1, -1)
    images = F.normalize(encode_images(clips, same), dim=-1)
    texts = F.normalize(encode_texts(clips, clips[0].tokenizer(["a red cube"] * len(clips))), dim=-1)
    for features in (images, texts):
        near = features @ features.T - torch.eye(len(clips))
        assert near.max() < 0.9999


def test_member_is_a_base_of_members(folder: Path, deltas: list[Path], tmp_path: Path) -> None:
    first = load_clip(f"local-dir:{deltas[0]}", device="cpu", precision="float32")
    over = save_tuned(tmp_path / "over", first, seed=9)
    clips = members(folder, deltas, "float32")
    clip = lay_over(clips[1], read_delta(over))
    assert family_of(clip) is family_of(clips[0])
    pixels = pixels_of(clip, 2)
    assert torch.equal(clip.encode_image(pixels), apply_delta(first, over).encode_image(pixels))


def test_delta_of_other_weights_gets_a_network_of_its_own(
    folder: Path, deltas: list[Path], tmp_path: Path
) -> None:
    first = load_clip(f"local-dir:{deltas[0]}", device="cpu", precision="float32")
    tuned = tuned_copy(first, seed=9, trained=lambda module: isinstance(module, nn.Linear))
    over = save_delta(tmp_path / "over", first, tuned, **HISTORY)
    clips = members(folder, deltas, "float32")
    clip = lay_over(clips[1], read_delta(over))
    assert not isinstance(clip.network, Member)
    assert clips[1].network.shared_by_all(read_delta(over).tensors)
    pixels, tokens = pixels_of(clip, 2), clip.tokenizer(TEXTS)
    theirs = apply_delta(first, over)
    assert torch.equal(clip.encode_image(pixels), theirs.encode_image(pixels))
    assert torch.equal(clip.encode_text(tokens), theirs.encode_text(tokens))
    assert family_of(as_member(clip)) is not family_of(clips[0])


def test_factors_take_their_own_memory_alone(folder: Path, loras: list[Path]) -> None:
    base, *others = members(folder, loras[:3], "bfloat16")
    numbers = [
        sum(value.numel() for value in read_delta(path).tensors.values() if value.dim()) for path in loras[:3]
    ]
    assert bytes_apart([clip.network for clip in others], [base.network]) == 2 * sum(numbers)


def test_weights_of_their_own_over_factors_are_a_network_of_their_own(
    folder: Path, loras: list[Path], tmp_path: Path
) -> None:
    first = load_clip(f"local-dir:{loras[2]}", device="cpu", precision="float32")
    tuned = tuned_copy(first, seed=9, trained=lambda module: isinstance(module, nn.LayerNorm | nn.Linear))
    over = save_delta(tmp_path / "over", first, tuned, **HISTORY)
    member = members(folder, loras[:3], "float32")[3]
    clip = lay_over(member, read_delta(over))
    assert not isinstance(clip.network, Member)
    pixels, tokens = pixels_of(clip, 2), clip.tokenizer(TEXTS)
    theirs = apply_delta(first, over)
    torch.testing.assert_close(clip.encode_image(pixels), theirs.encode_image(pixels), atol=1e-5, rtol=0)
    torch.testing.assert_close(clip.encode_text(tokens), theirs.encode_text(tokens), atol=1e-5, rtol=0)


def test_blend_of_a_member_is_that_of_its_networks(folder: Path, deltas: list[Path]) -> None:
    base = load_clip(f"local-dir:{folder}", device="cpu", precision="float32")
    half = lay_over(as_member(base), read_delta(deltas[0]), alpha=0.5)
    theirs = apply_delta(base, deltas[0], alpha=0.5)
    pixels = pixels_of(half, 2)
    assert half.version == theirs.version
    assert torch.equal(half.encode_image(pixels), theirs.encode_image(pixels))


def test_member_takes_the_memory_of_its_own_numbers(folder: Path, deltas: list[Path]) -> None:
    base, *others = members(folder, deltas[:3], "bfloat16")
    norms = base.network.norms.nbytes
    assert bytes_apart([clip.network for clip in others], [base.network]) == 3 * norms
    alone = bytes_apart([others[0].network], [])
    assert alone == bytes_apart([base.network], [])
    assert bytes_apart([others[0].network, others[1].network], []) == alone + norms


def test_network_whose_layer_norms_cannot_be_told_apart_is_left_as_it_is(tmp_path: Path) -> None:
    clip = load_clip(f"local-dir:{save_resnet(tmp_path / 'resnet')}", device="cpu", precision="float32")
    member = as_member(clip)
    assert member.version == clip.version
    pixels = pixels_of(clip, 2)
    assert torch.equal(member.encode_image(pixels), clip.encode_image(pixels))


class _Sideways(nn.Module):
    """A LayerNorm whose input does not have the batch as its first dimension."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        sideways: Tensor = self.norm(x.transpose(0, 1))
        return sideways.transpose(0, 1)


def _tied(network: Any) -> None:
    blocks = network.transformer.resblocks
    blocks[1].ln_1 = blocks[0].ln_1


def _turned(network: Any) -> None:
    block = network.transformer.resblocks[0]
    block.ln_1 = _Sideways(block.ln_1)


@pytest.mark.parametrize(
    ("change", "reason"),
    [(_tied, "One LayerNorm has two places"), (_turned, "failed in a trial with several versions")],
)
def test_network_that_is_written_otherwise_is_left_as_it_is_and_says_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, change: Callable[[Any], None], reason: str
) -> None:
    folder = save_tiny_clip(tmp_path / "changed")
    clip = load_clip(f"local-dir:{folder}", device="cpu", precision="float32")
    change(clip.network)
    member = as_member(clip)
    assert member.network is clip.network
    assert reason in str(member.alone)
    [warning] = [record for record in caplog.records if record.levelname == "WARNING"]
    assert f"The version {clip.version[:12]}" in warning.getMessage()
    assert str(member.alone) in warning.getMessage()


def test_mistake_of_a_program_is_not_taken_for_a_network_that_is_written_otherwise(tmp_path: Path) -> None:
    folder = save_tiny_clip(tmp_path / "broken")
    clip = load_clip(f"local-dir:{folder}", device="cpu", precision="float32")
    network: Any = clip.network
    network.visual.transformer = None
    with pytest.raises(TypeError):
        as_member(clip)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_versions_in_a_batch_answer_as_alone_on_a_gpu(
    folder: Path, deltas: list[Path], loras: list[Path], precision: str
) -> None:
    clips = members(folder, [*deltas, *loras[:3]], precision, device="cuda")
    rows = [clips[row % len(clips)] for row in range(2 * len(clips))]
    pixels, tokens = pixels_of(clips[0], len(rows)), clips[0].tokenizer(TEXTS[:1] * len(rows))
    images, texts = encode_images(rows, pixels), encode_texts(rows, tokens)
    for row, clip in enumerate(rows):
        for mixed, alone in (
            (images[row], clip.encode_image(pixels[row : row + 1], normalize=False)[0]),
            (texts[row], clip.encode_text(tokens[row : row + 1], normalize=False)[0]),
        ):
            assert F.cosine_similarity(mixed.float(), alone.float(), dim=0) > 0.999_99


def test_damage_of_one_version_stays_in_its_rows(folder: Path, deltas: list[Path]) -> None:
    base, good, *_ = members(folder, deltas, "float32")
    broken = replace(
        good,
        network=good.network.with_tensors(
            {name: torch.full_like(value, torch.nan) for name, value in read_delta(deltas[0]).tensors.items()}
        ),
    )
    features = encode_images([base, broken, good], pixels_of(base, 3))
    assert features.isfinite().all(dim=1).tolist() == [True, False, True]
